-- name: calls_by_ids
-- Some calls (a JSON list of ids), newest first, with the names that people know them by.
SELECT c.*, f.name AS function, coalesce(nullif(a.name, ''), a.description) AS app, a.environment, a.owner
FROM calls c JOIN apps a ON a.app_id = c.app_id LEFT JOIN functions f ON f.function_id = c.function_id
WHERE c.call_id IN (SELECT value FROM json_each(:call_ids)) AND c.status <> 'orphan' ORDER BY c.seq DESC;

-- name: calls_done_last
-- Calls that are over, those that ended last first: quick however many others are open.
SELECT c.*, f.name AS function, coalesce(nullif(a.name, ''), a.description) AS app, a.environment, a.owner
FROM calls c INDEXED BY calls_by_age JOIN apps a ON a.app_id = c.app_id
LEFT JOIN functions f ON f.function_id = c.function_id
WHERE c.done_at IS NOT NULL AND c.status <> 'orphan' AND (:environment = '' OR a.environment = :environment)
  AND (:owner = '' OR a.owner = :owner)
  AND (:before = 0 OR c.done_at < :before)
ORDER BY c.done_at DESC LIMIT :limit;

-- name: functions_named
-- Functions of this name (or id) with their variants, stopped apps' too, of the newest apps first; a class is named without '.*'.
SELECT f.function_id FROM functions f JOIN apps a ON a.app_id = f.app_id
WHERE (:environment = '' OR a.environment = :environment) AND (:owner = '' OR a.owner = :owner)
  AND (:app = '' OR a.app_id = :app OR a.name = :app OR a.description = :app)
  AND (f.function_id = :name OR f.name IN (:name, :name || '.*')
    OR substr(f.name, 1, length(:name) + 1) = :name || '#' OR substr(f.name, 1, length(:name) + 3) = :name || '.*#')
ORDER BY a.created_at DESC LIMIT :limit;

-- name: apps_named
-- Apps of this name (or id; '' is all), newest first, stopped ones too.
SELECT app_id FROM apps
WHERE (:environment = '' OR environment = :environment) AND (:owner = '' OR owner = :owner)
  AND (:app = '' OR app_id = :app OR name = :app OR description = :app)
ORDER BY created_at DESC LIMIT :limit;

-- name: calls_open_before
-- How many inputs of a function came before a call and are still open.
SELECT coalesce(sum(accepted - succeeded - failed), 0) AS inputs FROM calls
WHERE function_id = :function_id AND done_at IS NULL AND seq < :seq;

-- name: function_module
-- Where a function's code is, stopped apps' too.
SELECT name, json_extract(spec, '$.module') AS module FROM functions WHERE function_id = :function_id;
