-- Which key sealed a secret's values: its id, '' for values of before keys had ids. Who needs a blob follows from what functions,
-- versions and images are made of (services/blob_users.py), and is written down nowhere else.

ALTER TABLE secrets ADD COLUMN sealed_by TEXT NOT NULL DEFAULT '';
DROP TABLE blob_refs;

-- Large values are few among many: found without a look at the others.
CREATE INDEX chunks_large ON chunks (body) WHERE flags & 1;
CREATE INDEX outputs_large ON outputs (body) WHERE flags & 1;
