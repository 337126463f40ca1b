-- What a token is for. '': protected web functions. 'call:APP': calling functions of an app of this environment over HTTP.

ALTER TABLE proxy_tokens ADD COLUMN scope TEXT NOT NULL DEFAULT '';
ALTER TABLE proxy_tokens ADD COLUMN environment TEXT NOT NULL DEFAULT '';
