-- name: secret_add
-- Keep a new secret, sealed. A name that is taken in its environment is refused by the index.
INSERT INTO secrets (secret_id, name, environment, owner, app_id, sealed, sealed_by, keys, created_at, created_by)
VALUES (:secret_id, :name, :environment, :owner, :app_id, :sealed, :sealed_by, :keys, :now, :created_by);

-- name: secret_replace
-- New values for a secret; its id stays, so that functions which name it see them in their next container.
UPDATE secrets SET sealed = :sealed, sealed_by = :sealed_by, keys = :keys WHERE secret_id = :secret_id;

-- name: secret_by_name
-- A named secret of an environment.
SELECT secret_id, name, environment, owner, app_id, sealed, sealed_by, keys, created_at, created_by, last_used_at
FROM secrets WHERE environment = :environment AND name = :name AND name <> '';

-- name: secret_by_id
-- A secret of any kind.
SELECT secret_id, name, environment, owner, app_id, sealed, sealed_by, keys, created_at, created_by, last_used_at
FROM secrets WHERE secret_id = :secret_id;

-- name: secrets_named
-- The named secrets of an environment, newest first.
SELECT secret_id, name, environment, owner, keys, created_at, created_by, last_used_at
FROM secrets WHERE environment = :environment AND name <> '' ORDER BY created_at DESC;

-- name: secret_used
-- Note when a container last got a secret.
UPDATE secrets SET last_used_at = :now WHERE secret_id = :secret_id;

-- name: secret_delete
-- Forget a secret.
DELETE FROM secrets WHERE secret_id = :secret_id;

-- name: secrets_of_app_delete
-- Forget the anonymous secrets of an app that is over.
DELETE FROM secrets WHERE app_id = :app_id;

-- name: secrets_sealed
-- All secrets as they are sealed, for a change of keys.
SELECT secret_id, name, environment, sealed, sealed_by FROM secrets;

-- name: secret_reseal
-- The same values, sealed with another key.
UPDATE secrets SET sealed = :sealed, sealed_by = :sealed_by WHERE secret_id = :secret_id;

-- name: secrets_sealed_by
-- How many secrets a key has sealed.
SELECT count(*) AS number FROM secrets WHERE sealed_by = :key_id;

-- name: secrets_of_apps
-- Anonymous secrets that were made before a moment.
SELECT secret_id FROM secrets WHERE app_id <> '' AND created_at < :before;
