-- name: deployment_add
-- One more version of an app.
INSERT INTO deployments (app_id, version, deploy_id, specs, tags, deployed_at, deployed_by, tag, git_commit, dirty, client, strategy, origin,
  staged)
VALUES (:app_id, :version, :deploy_id, :specs, :tags, :now, :who, :tag, :git_commit, :dirty, :client, :strategy, :origin,
  :staged);

-- name: deployment_failed
-- A version was taken back, and why. Nobody goes back to it.
UPDATE deployments SET failed = :failed, specs = NULL WHERE app_id = :app_id AND version = :version;

-- name: deployments_too_old
-- Versions before the last :most can be read of, and not be gone back to.
UPDATE deployments SET specs = NULL WHERE app_id = :app_id AND specs IS NOT NULL AND version NOT IN (
  SELECT d.version FROM deployments d WHERE d.app_id = :app_id AND d.failed = '' ORDER BY d.version DESC LIMIT :most);

-- name: deployment_by_id
-- The version that came of a deploy, for a client that asks again.
SELECT * FROM deployments WHERE deploy_id = :deploy_id AND deploy_id <> '';

-- name: deployments_of_app
-- Versions of an app without what they are made of, newest first.
SELECT app_id, version, specs IS NOT NULL AS kept, tags, deployed_at, deployed_by, tag, git_commit, dirty, client, strategy, origin, failed,
  staged
FROM deployments WHERE app_id = :app_id ORDER BY version DESC LIMIT :limit;

-- name: deployment_of_app
-- One version of an app with what it is made of.
SELECT * FROM deployments WHERE app_id = :app_id AND version = :version;

-- name: deployment_last
-- The number of the newest version, failed ones too.
SELECT coalesce(max(version), 0) AS version FROM deployments WHERE app_id = :app_id;

-- name: deployment_specs_kept
-- What the versions that living apps can go back to are made of.
SELECT d.specs FROM deployments d JOIN apps a ON a.app_id = d.app_id WHERE a.state <> 'stopped' AND d.specs IS NOT NULL;

-- name: app_deploy
-- An app is at this version from now on.
UPDATE apps SET state = 'deployed', version = :version, deployed_at = :now, deployed_by = :who, tags = :tags,
  name = :name, description = :name
WHERE app_id = :app_id AND state <> 'stopped';

-- name: app_version
-- An app is at an earlier version again.
UPDATE apps SET version = :version, deployed_at = :now, deployed_by = :who, tags = :tags WHERE app_id = :app_id;

-- name: app_tags
-- Other tags for an app.
UPDATE apps SET tags = :tags WHERE app_id = :app_id;

-- name: environments_used
-- All environments, by name, with their apps that live.
SELECT e.name, e.owner, e.created_at,
  (SELECT count(*) FROM apps a WHERE a.environment = e.name AND a.state <> 'stopped') AS apps,
  (SELECT count(*) FROM volumes v WHERE v.environment = e.name) AS volumes,
  (SELECT count(*) FROM secrets s WHERE s.environment = e.name AND s.name <> '') AS secrets
FROM environments e ORDER BY e.name;

-- name: environment_delete
-- Forget an environment.
DELETE FROM environments WHERE name = :name;

-- name: environment_secrets_delete
-- Forget the named secrets of an environment.
DELETE FROM secrets WHERE environment = :name AND name <> '';

-- name: environment_images_delete
-- Forget the names of images of an environment; the images stay.
DELETE FROM image_names WHERE environment = :name;

-- name: secrets_of_app
-- Anonymous secrets of an app, sealed, newest first.
SELECT secret_id, sealed, sealed_by, keys, owner, created_at, created_by FROM secrets
WHERE app_id = :app_id AND name = '' AND keys = :keys ORDER BY created_at DESC LIMIT 64;

-- name: trial_begin
-- A version is tried from now on.
INSERT OR REPLACE INTO trials (app_id, version, renew, who, before) VALUES (:app_id, :version, :renew, :who, :before);

-- name: trial_over
-- The version serves, or was taken back.
DELETE FROM trials WHERE app_id = :app_id;

-- name: trials_open
-- Trials that nobody has seen the end of.
SELECT * FROM trials ORDER BY app_id;

-- name: containers_again
-- Containers of the version that serves again are of the newest one from now on.
UPDATE containers SET function_version = :now WHERE function_id = :function_id AND function_version = :before AND state <> 'ended';
