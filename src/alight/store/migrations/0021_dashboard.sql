-- Who is logged in at the dashboard, and who changed what there.

-- session: SHA-256 of what the browser has. token_id: the token that it was opened with, '' for a user of this machine.
CREATE TABLE web_sessions (
  session BLOB PRIMARY KEY,
  kind TEXT NOT NULL,
  owner TEXT NOT NULL,
  token_id TEXT NOT NULL DEFAULT '',
  created_at REAL NOT NULL,
  expires_at REAL NOT NULL
) WITHOUT ROWID;

-- app_owner: whose the thing was that was changed; they may see the entry, too. problem: '' for what was done.
CREATE TABLE audit (
  number INTEGER PRIMARY KEY,
  at REAL NOT NULL,
  who TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  detail TEXT NOT NULL DEFAULT '',
  app_owner TEXT NOT NULL DEFAULT '',
  problem TEXT NOT NULL DEFAULT ''
);
CREATE INDEX audit_by_age ON audit (at);
