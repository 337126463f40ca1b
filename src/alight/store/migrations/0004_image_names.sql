-- Images that have names: name:tag in an environment. A name that is given again means the new image from then on.
CREATE TABLE image_names (
  environment TEXT NOT NULL,
  name TEXT NOT NULL,
  tag TEXT NOT NULL,
  image_id TEXT NOT NULL,
  named_at REAL NOT NULL,
  PRIMARY KEY (environment, name, tag)
) WITHOUT ROWID;
