CREATE TABLE readings (
    id text PRIMARY KEY,
    sensor text NOT NULL CHECK (sensor <> ''),
    taken timestamptz NOT NULL,
    value double precision NOT NULL
);
