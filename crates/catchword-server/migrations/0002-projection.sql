-- What people read with SQL: plain rows that the projector makes of the records, some time after them.
--
-- Nothing here decides anything. TRUNCATE the three tables, and the projector makes them again.
-- There is no reference from here to documents and records: a lock on their rows would let calls wait
-- for the projector.

-- How far the projector is in the feed of an account.
CREATE TABLE catchword.projections (
    account_id bytea NOT NULL,
    feed bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id),
    FOREIGN KEY (account_id) REFERENCES catchword.accounts
);

-- Where the person is in each book.
CREATE TABLE catchword.places (
    account_id bytea NOT NULL,
    book bytea NOT NULL,
    title text,
    ppm integer,
    pass integer,
    intent text,
    device bytea,
    stamp bigint,
    wall_ms bigint,
    locator text,
    furthest_ppm integer,
    state bytea NOT NULL,
    PRIMARY KEY (account_id, book)
);

-- What was highlighted and noted, as devices show it; kind is NULL where they show nothing.
CREATE TABLE catchword.annotations (
    account_id bytea NOT NULL,
    book bytea NOT NULL,
    annotation_id text NOT NULL,
    kind text,
    quote text,
    note text,
    color text,
    style text,
    locator text,
    total_ppm integer,
    sort_key bytea,
    stamp bigint,
    device text,
    source text,
    deleted boolean NOT NULL,
    edited_while_deleted boolean NOT NULL,
    conflicts jsonb NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (account_id, book, annotation_id)
);

DO $$
DECLARE
    of_account constant text :=
        'account_id = decode(current_setting(''app.account_id'', true), ''hex'')';
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['projections', 'places', 'annotations'] LOOP
        EXECUTE format('ALTER TABLE catchword.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE catchword.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY of_account ON catchword.%I TO catchword_service USING (%s) WITH CHECK (%s)',
            name, of_account, of_account);
        EXECUTE format(
            'GRANT SELECT, INSERT, UPDATE, DELETE ON catchword.%I TO catchword_service', name);
    END LOOP;
END $$;

-- Who finds the accounts that the projector is behind with: every account, and of each nothing but its
-- id and its numbers.
CREATE POLICY to_find ON catchword.accounts FOR SELECT TO catchword_projector USING (true);
CREATE POLICY to_find ON catchword.projections FOR SELECT TO catchword_projector USING (true);
GRANT SELECT (account_id, feed) ON catchword.accounts TO catchword_projector;
GRANT SELECT (account_id, feed) ON catchword.projections TO catchword_projector;
