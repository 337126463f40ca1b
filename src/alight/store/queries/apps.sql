-- name: app_add
-- Record a new app.
INSERT INTO apps (app_id, name, description, environment, state, owner, tags, created_at)
VALUES (:app_id, :name, :description, :environment, :state, :owner, :tags, :now);

-- name: app_by_id
-- One app, stopped ones too.
SELECT * FROM apps WHERE app_id = :app_id;

-- name: apps_alive
-- Every app that is not stopped: what a starting server takes up again.
SELECT * FROM apps WHERE state <> 'stopped';

-- name: apps_recent
-- Apps of an environment ('' is all), newest first, optionally of one name or id, with the number of live containers.
SELECT a.*, (SELECT count(*) FROM containers c WHERE c.app_id = a.app_id AND c.state <> 'ended') AS containers,
  (SELECT json_group_array(f.name) FROM functions f WHERE f.app_id = a.app_id AND f.gone = '') AS functions
FROM apps a
WHERE (:environment = '' OR a.environment = :environment)
  AND (:owner = '' OR a.owner = :owner)
  AND (:name_or_id = '' OR a.app_id = :name_or_id OR a.name = :name_or_id OR a.description = :name_or_id)
ORDER BY a.created_at DESC, a.app_id DESC LIMIT :limit;

-- name: app_set_state
-- An app is held, detached or deployed from now on.
UPDATE apps SET state = :state WHERE app_id = :app_id AND state <> 'stopped';

-- name: app_stop
-- An app has ended, and why.
UPDATE apps SET state = 'stopped', stopped_at = :now, stop_reason = :reason, stopped_by = :who WHERE app_id = :app_id AND state <> 'stopped';

-- name: app_secrets_delete
-- Anonymous secrets end with their app.
DELETE FROM secrets WHERE app_id = :app_id AND name = '';

-- name: function_put
-- Record a function, or its newer version.
INSERT INTO functions (function_id, app_id, name, spec, version, created_at, gone)
VALUES (:function_id, :app_id, :name, :spec, :version, :now, :gone)
ON CONFLICT (app_id, name) DO UPDATE SET spec = excluded.spec, version = excluded.version, gone = excluded.gone;

-- name: functions_of_living_apps
-- Functions of every app that is not stopped.
SELECT f.* FROM functions f JOIN apps a ON a.app_id = f.app_id WHERE a.state <> 'stopped';

-- name: containers_of_app
-- Containers of an app, oldest first, ended ones too: whose logs there are.
SELECT * FROM containers WHERE app_id = :app_id ORDER BY created_at, container_id;
