-- name: log_app
-- The app of a name or an id whose logs are meant: one that lives before one that was stopped, one of main before those
-- of other environments that were not named, then the newest.
SELECT app_id, coalesce(nullif(name, ''), description) AS name, owner, environment, state FROM apps
WHERE (app_id = :app OR name = :app OR description = :app)
  AND (:environment = '' OR environment = :environment OR app_id = :app)
  AND (:owner = '' OR owner = :owner)
ORDER BY state = 'stopped', environment <> 'main', created_at DESC LIMIT 1;

-- name: log_functions
-- Functions of an app, those that are gone too.
SELECT function_id, name, spec FROM functions WHERE app_id = :app_id;

-- name: log_containers
-- Containers of some functions (a JSON list of ids; an empty one means all) that were there between two moments, the newest.
SELECT container_id, function_id, created_at, ended_at FROM containers
WHERE app_id = :app_id AND created_at <= :until AND (ended_at IS NULL OR ended_at >= :since)
  AND (:functions = '[]' OR function_id IN (SELECT value FROM json_each(:functions)))
  AND (:container = '' OR container_id = :container)
ORDER BY created_at DESC LIMIT :limit;

-- name: log_function
-- Whose a function is.
SELECT f.function_id, f.name, f.app_id FROM functions f WHERE f.function_id = :function_id;

-- name: log_container
-- Whose a container is.
SELECT app_id FROM containers WHERE container_id = :container_id;
