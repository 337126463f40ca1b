-- name: minute_put
-- What became of a function's inputs in one minute, as far as one server process saw it.
INSERT OR REPLACE INTO function_minutes
  (function_id, minute, part, success, failure, timeout, cancelled, queue, run, queue_seconds, run_seconds)
VALUES (:function_id, :minute, :part, :success, :failure, :timeout, :cancelled, :queue, :run, :queue_seconds, :run_seconds);

-- name: minutes_of_functions
-- Minutes of some functions (a JSON list of ids) from one to another.
SELECT * FROM function_minutes
WHERE function_id IN (SELECT value FROM json_each(:functions)) AND minute >= :since AND minute <= :until;

-- name: web_minute_put
-- What a web function was asked in one minute, as far as one server process saw it.
INSERT OR REPLACE INTO web_minutes (function_id, minute, part, statuses, latency)
VALUES (:function_id, :minute, :part, :statuses, :latency);

-- name: web_minutes_of_functions
-- The same, of some functions (a JSON list of ids) between two minutes.
SELECT * FROM web_minutes
WHERE function_id IN (SELECT value FROM json_each(:functions)) AND minute >= :since AND minute <= :until;

-- name: web_minutes_forget
-- What is too old to be asked for.
DELETE FROM web_minutes WHERE minute < :before;

-- name: minutes_forget
-- Minutes that are old.
DELETE FROM function_minutes WHERE minute < :before;

-- name: function_measured
-- A function with its app and its variants (`name#…`), stopped apps' too: ids, names, whose it is.
SELECT f.function_id, f.name, f.spec, f.created_at, f.app_id, coalesce(nullif(a.name, ''), a.description) AS app, a.environment, a.owner,
  a.state
FROM functions one JOIN functions f ON f.app_id = one.app_id
  AND (f.name = one.name OR substr(f.name, 1, length(one.name) + 1) = one.name || '#')
JOIN apps a ON a.app_id = f.app_id WHERE one.function_id = :function_id ORDER BY length(f.name), f.created_at;

-- name: function_by_place
-- Functions by the name of their app (or its id) and their own, the newest app first; a class is named without '.*'.
SELECT f.function_id FROM functions f JOIN apps a ON a.app_id = f.app_id
WHERE (:environment = '' OR a.environment = :environment) AND (:owner = '' OR a.owner = :owner)
  AND (a.app_id = :app OR a.name = :app OR a.description = :app) AND f.name IN (:name, :name || '.*')
ORDER BY a.state = 'stopped', a.created_at DESC LIMIT 1;

-- name: containers_measured
-- Containers of some functions (a JSON list of ids) that were there between two moments, with how each started.
SELECT c.container_id, c.function_id, c.node_id, c.created_at, c.ended_at, c.state, c.exit_code, c.signal, c.why, s.total, s.how
FROM containers c LEFT JOIN starts s ON s.container_id = c.container_id
WHERE c.app_id = :app_id AND c.function_id IN (SELECT value FROM json_each(:functions))
  AND c.created_at <= :until AND (c.ended_at IS NULL OR c.ended_at >= :since)
ORDER BY c.created_at DESC LIMIT :limit;

-- name: functions_of_app_measured
-- The functions of some apps (a JSON list of ids), with variants.
SELECT f.function_id, f.name, f.app_id FROM functions f WHERE f.app_id IN (SELECT value FROM json_each(:apps)) ORDER BY f.created_at;

-- name: deployments_between
-- How many versions of an app were deployed between two moments.
SELECT count(*) AS count FROM deployments WHERE app_id = :app_id AND deployed_at >= :since AND deployed_at <= :until;

-- name: nodes_seen
-- Every machine that was ever connected.
SELECT node_id, hostname, version, first_seen, last_seen FROM nodes ORDER BY hostname, node_id;

-- name: container_named
-- What a container is called and whose it is: for lists of what is alive.
SELECT c.container_id, coalesce(nullif(a.name, ''), a.description) AS app, a.owner, f.name AS function, n.hostname
FROM containers c JOIN apps a ON a.app_id = c.app_id LEFT JOIN functions f ON f.function_id = c.function_id
LEFT JOIN nodes n ON n.node_id = c.node_id WHERE c.container_id = :container_id;
