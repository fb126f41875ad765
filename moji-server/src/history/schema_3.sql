-- Version 3: events, who has got them, and what pages ask.

-- What happened, one after the other. An event outlives what it tells of, so it names all of that itself.
CREATE TABLE events (
    id INTEGER PRIMARY KEY,     -- never used again, also when the history was lost: see events.rs
    noted_at INTEGER NOT NULL,  -- when it was written
    at INTEGER NOT NULL,        -- when it happened
    kind TEXT NOT NULL,
    text TEXT NOT NULL,         -- in one line for people
    build INTEGER,
    build_target TEXT,
    srpm TEXT,
    nvr TEXT,
    attempt TEXT,
    builder TEXT,
    failure TEXT,
    reason TEXT,
    missing TEXT,               -- JSON: requirements
    target TEXT,                -- whose repository was published; NULL: the main one
    generation INTEGER,
    CHECK ((build IS NULL) = (srpm IS NULL))
) STRICT;

CREATE INDEX events_at ON events (at);
CREATE INDEX events_kind ON events (kind);
CREATE INDEX events_build ON events (build) WHERE build IS NOT NULL;

-- The receivers of events outside, and what each has got.
CREATE TABLE sinks (
    name TEXT PRIMARY KEY,
    delivered INTEGER NOT NULL  -- the last event
) STRICT, WITHOUT ROWID;

-- Who made the attempt that settled the build: else a builder's builds are found only by all its attempts.
ALTER TABLE builds ADD COLUMN builder TEXT;
UPDATE builds SET builder = (SELECT builder FROM attempts WHERE id = settled_by) WHERE settled_by IS NOT NULL;

-- Each also orders by builds.id, which lists are paged by.
DROP INDEX builds_name;
CREATE INDEX builds_name ON builds (name);
CREATE INDEX builds_nvr ON builds (nvr);
CREATE INDEX builds_target ON builds (target);
CREATE INDEX builds_state_id ON builds (state);
CREATE INDEX builds_builder ON builds (builder) WHERE builder IS NOT NULL;
CREATE INDEX builds_failure ON builds (failure) WHERE failure IS NOT NULL;

-- These answer alone, without the rows.
DROP INDEX builds_settled_at;
CREATE INDEX builds_settled_at ON builds (settled_at, state, target);
DROP INDEX attempts_build;
CREATE INDEX attempts_build ON attempts (build, leased_at);
DROP INDEX attempts_builder;
CREATE INDEX attempts_builder ON attempts (builder, ended_at, ending, outcome, failure);
