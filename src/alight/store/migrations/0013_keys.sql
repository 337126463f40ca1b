-- Which key sealed a secret's values: its id, '' for values of before keys had ids. Who needs a blob follows from what functions,
-- versions and images are made of (services/blob_users.py), and is written down nowhere else.

ALTER TABLE secrets ADD COLUMN sealed_by TEXT NOT NULL DEFAULT '';
DROP TABLE blob_refs;
