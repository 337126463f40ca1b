-- What callers of protected web functions show. The secret itself is never stored. A token opens its owner's functions.

CREATE TABLE proxy_tokens (
  token_id TEXT PRIMARY KEY,
  secret_hash BLOB NOT NULL,
  name TEXT NOT NULL DEFAULT '',
  owner TEXT NOT NULL,
  created_at REAL NOT NULL,
  last_used_at REAL
) WITHOUT ROWID;
