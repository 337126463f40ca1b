-- Containers of a function that is @clustered: which of them work together, as rank of how many. '' and 0: it works alone.
ALTER TABLE containers ADD COLUMN cluster TEXT NOT NULL DEFAULT '';
ALTER TABLE containers ADD COLUMN rank INTEGER NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN cluster_size INTEGER NOT NULL DEFAULT 0;
CREATE INDEX containers_by_cluster ON containers (cluster) WHERE cluster <> '';
