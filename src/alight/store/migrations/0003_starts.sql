-- Where each container's start went, and how it ended. A row of starts is written when its machine is told to start it, or when
-- that comes to nothing, and again when its machine has said how it went.

ALTER TABLE containers ADD COLUMN exit_code INTEGER;
ALTER TABLE containers ADD COLUMN signal INTEGER;
CREATE INDEX containers_by_age ON containers (created_at);

-- stages: JSON, name to seconds. facts: JSON, what else is known (imports, refused, built, waited). reached: the stage that
-- it did not get out of. total: seconds to the first line of the function, or to ready; NULL while it starts.
CREATE TABLE starts (
  container_id TEXT PRIMARY KEY,
  function_id TEXT NOT NULL,
  created_at REAL NOT NULL,
  how TEXT NOT NULL DEFAULT '',
  level INTEGER NOT NULL DEFAULT 0,
  reached TEXT NOT NULL DEFAULT '',
  total REAL,
  stages TEXT NOT NULL DEFAULT '{}',
  facts TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;
CREATE INDEX starts_by_function ON starts (function_id, created_at);
