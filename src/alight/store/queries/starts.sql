-- name: start_put
-- Where a container's start went, as far as it is known.
INSERT INTO starts (container_id, function_id, created_at, how, level, reached, total, stages, facts)
VALUES (:container_id, :function_id, :created_at, :how, :level, :reached, :total, :stages, :facts)
ON CONFLICT (container_id) DO UPDATE SET how = excluded.how, level = excluded.level, reached = excluded.reached,
  total = excluded.total, stages = excluded.stages, facts = excluded.facts;

-- name: starts_open
-- The starts of containers that have not ended: a restarted server adds what their machines say.
SELECT s.*, c.state FROM starts s JOIN containers c ON c.container_id = s.container_id WHERE c.state <> 'ended';

-- name: starts_of_apps
-- The newest starts of all functions of some apps (a JSON list of ids) since a moment.
SELECT s.*, f.name AS function, f.spec, coalesce(c.state = 'ended', 1) AS ended
FROM functions f JOIN starts s ON s.function_id = f.function_id
LEFT JOIN containers c ON c.container_id = s.container_id
WHERE f.app_id IN (SELECT value FROM json_each(:apps)) AND s.created_at >= :since
ORDER BY s.created_at DESC LIMIT :limit;

-- name: starts_forget
-- Starts that are old, of containers that have ended (or are forgotten).
DELETE FROM starts WHERE created_at < :before
  AND NOT EXISTS (SELECT 1 FROM containers c WHERE c.container_id = starts.container_id AND c.state <> 'ended');

-- name: starts_too_many
-- All but the newest starts of each function.
DELETE FROM starts WHERE container_id IN (
  SELECT container_id FROM (
    SELECT container_id, row_number() OVER (PARTITION BY function_id ORDER BY created_at DESC) AS place FROM starts)
  WHERE place > :most);

-- name: containers_recent
-- Containers, the newest first, with the names that people know and how they started. ended 0: only those that are there.
SELECT c.*, f.name AS function, coalesce(nullif(a.name, ''), a.description) AS app, n.hostname AS hostname,
  s.how, s.level, s.total
FROM containers c JOIN apps a ON a.app_id = c.app_id LEFT JOIN functions f ON f.function_id = c.function_id
LEFT JOIN nodes n ON n.node_id = c.node_id LEFT JOIN starts s ON s.container_id = c.container_id
WHERE (:ended OR c.state <> 'ended') AND (:environment = '' OR a.environment = :environment)
  AND (:owner = '' OR a.owner = :owner)
  AND (:app = '' OR a.app_id = :app OR a.name = :app OR a.description = :app)
ORDER BY c.created_at DESC, c.container_id DESC LIMIT :limit;

-- name: container_shown
-- One container with the names that people know and where its start went.
SELECT c.*, f.name AS function, coalesce(nullif(a.name, ''), a.description) AS app, a.environment, a.owner,
  n.hostname AS hostname, s.how, s.level, s.total, s.reached, s.stages, s.facts, f.spec
FROM containers c JOIN apps a ON a.app_id = c.app_id LEFT JOIN functions f ON f.function_id = c.function_id
LEFT JOIN nodes n ON n.node_id = c.node_id LEFT JOIN starts s ON s.container_id = c.container_id
WHERE c.container_id = :container_id;

-- name: starts_of_all
-- Every start that is kept.
SELECT * FROM starts ORDER BY container_id;
