-- Versions of apps that came up and wait to be promoted: they have never served. One that was promoted is an earlier version of the
-- one that did so (origin).

ALTER TABLE deployments ADD COLUMN staged INTEGER NOT NULL DEFAULT 0;
