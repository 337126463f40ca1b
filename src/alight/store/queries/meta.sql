-- name: meta_get
-- One setting of the database itself (its server id, for one).
SELECT value FROM meta WHERE key = :key;

-- name: meta_set
-- Keep a setting once; the first value stays.
INSERT OR IGNORE INTO meta (key, value) VALUES (:key, :value);

-- name: environment_add
-- Make an environment when it is first used.
INSERT OR IGNORE INTO environments (name, owner, created_at) VALUES (:name, :owner, :now);

-- name: environments
-- All environments, by name.
SELECT name, owner, created_at FROM environments ORDER BY name;
