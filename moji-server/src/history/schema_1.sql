-- Version 1.
--
-- Times: microseconds since 1970, UTC. Digests: hex. Attempt ids: the text that they have everywhere
-- (16 hex digits of the boot, a dash, the serial), which holds all 128 bits; SQLite's integers have 63
-- and a sign. States and kinds: words, checked.

-- One SRPM for one target, from queued to settled. Queued again after that, it is another build.
CREATE TABLE builds (
    id INTEGER PRIMARY KEY,
    target TEXT,                -- NULL: any builder may build it
    srpm TEXT NOT NULL,
    nvr TEXT,
    name TEXT,                  -- the package's, of the NVR
    srpm_sha256 TEXT,
    size INTEGER,
    queued_at INTEGER NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'held', 'withdrawn')),
    settled_at INTEGER,
    reason TEXT,
    failure TEXT,
    settled_by TEXT,            -- an attempt
    CHECK ((settled_at IS NULL) = (state IN ('queued', 'running')))
) STRICT;

CREATE UNIQUE INDEX builds_open ON builds (srpm, ifnull(target, '')) WHERE settled_at IS NULL;
CREATE INDEX builds_srpm ON builds (srpm, target);
CREATE INDEX builds_name ON builds (name, settled_at);
CREATE INDEX builds_state ON builds (state, settled_at);
CREATE INDEX builds_queued_at ON builds (queued_at);
CREATE INDEX builds_settled_at ON builds (settled_at);

CREATE TABLE attempts (
    id TEXT PRIMARY KEY,
    build INTEGER NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    builder TEXT NOT NULL,
    target TEXT NOT NULL,
    leased_at INTEGER NOT NULL,
    ended_at INTEGER,
    ending TEXT CHECK (ending IN
        ('delivered', 'lost', 'released', 'cancelled', 'stale', 'rejected', 'interrupted')),
    outcome TEXT CHECK (outcome IN ('succeeded', 'failed')),
    failure TEXT,
    reason TEXT,
    exit_code INTEGER,
    missing TEXT,               -- JSON: requirements
    srpm_sha256 TEXT,
    logs TEXT NOT NULL DEFAULT '{}', -- JSON: bytes by name
    bytes INTEGER NOT NULL DEFAULT 0,
    readopted INTEGER NOT NULL DEFAULT 0,
    CHECK ((ended_at IS NULL) = (ending IS NULL))
) STRICT;

CREATE INDEX attempts_build ON attempts (build);
CREATE INDEX attempts_builder ON attempts (builder, ended_at);
CREATE INDEX attempts_leased_at ON attempts (leased_at);

CREATE TABLE artifacts (
    attempt TEXT NOT NULL REFERENCES attempts (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (attempt, name)
) STRICT, WITHOUT ROWID;

-- Which records were read, so that a start reads only what is new.
CREATE TABLE stamps (
    path TEXT PRIMARY KEY,
    inode INTEGER NOT NULL,
    modified INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
