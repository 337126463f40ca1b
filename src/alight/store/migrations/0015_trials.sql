-- Trials of new versions that nobody has seen the end of: what the app and its functions were before, so that a server that starts
-- again can go on with the trial, and take the version back. version: of the app, while it is tried. renew: fresh containers of the
-- version that was there. before: JSON, see server/services/trials.py.
CREATE TABLE trials (
  app_id TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  renew INTEGER NOT NULL DEFAULT 0,
  who TEXT NOT NULL DEFAULT '',
  before TEXT NOT NULL
) WITHOUT ROWID;
