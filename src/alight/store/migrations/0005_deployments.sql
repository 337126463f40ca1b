-- Deployed apps: what each version was made of. functions.gone says that a function is in no version any more (why, as a sentence).

ALTER TABLE functions ADD COLUMN gone TEXT NOT NULL DEFAULT '';
ALTER TABLE apps ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE apps ADD COLUMN deployed_at REAL;
ALTER TABLE apps ADD COLUMN deployed_by TEXT NOT NULL DEFAULT '';
ALTER TABLE apps ADD COLUMN stopped_by TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX apps_deployed ON apps (environment, name) WHERE state = 'deployed' AND name <> '';

-- specs: JSON list of FunctionSpec, NULL once it is too old to go back to. failed: why it was taken back, '' when it was not.
-- origin: the version that it goes back to, 0 when it is a deploy. deploy_id: made by the client, which may ask again.
CREATE TABLE deployments (
  app_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  deploy_id TEXT NOT NULL DEFAULT '',
  specs TEXT,
  tags TEXT NOT NULL DEFAULT '{}',
  deployed_at REAL NOT NULL,
  deployed_by TEXT NOT NULL DEFAULT '',
  tag TEXT NOT NULL DEFAULT '',
  git_commit TEXT NOT NULL DEFAULT '',
  dirty INTEGER NOT NULL DEFAULT 0,
  client TEXT NOT NULL DEFAULT '',
  strategy TEXT NOT NULL DEFAULT 'rolling',
  origin INTEGER NOT NULL DEFAULT 0,
  failed TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (app_id, version)
) WITHOUT ROWID;
CREATE INDEX deployments_by_id ON deployments (deploy_id) WHERE deploy_id <> '';
