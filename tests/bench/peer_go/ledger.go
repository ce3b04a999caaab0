package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3" // the usual driver
	"google.golang.org/protobuf/proto"

	pb "example.com/userintent/userintentv1"
)

// ledger keeps the real gateway's promise with what Go offers for it: SQLite by the usual driver, a write-ahead log synced at
// each commit, a row that is durable before the POST and an outcome that is durable before the answer. One goroutine writes, and
// takes whatever waits into one transaction, as an author who has measured would do.
//
// What it lacks of the real one errs in Go's favour: no joining of repeats, no operators, no webhooks, no change log, no
// rotation of keys. Safe for every goroutine.
type ledger struct {
	db    *sql.DB
	ops   chan *operation
	ended chan struct{}
	key   []byte
}

type state int

const (
	sending state = iota + 1
	succeeded
	failed
	unknown
	released
)

const (
	attemptLimit = 3
	maxBatch     = 256
)

var errUnavailable = errors.New("the ledger cannot be written")

// record is what is known of a request.
type record struct {
	state                     state
	intent, status, requestID string
	createdAt                 int64
}

type verdict int

const (
	goAhead    verdict = iota // the row is durable, and nobody else has it
	isRecorded                // answer from the record
	isOther                   // the id was used for another content
	isSpent                   // the address has no attempt left
)

// operation is a begin, or the finish of one.
type operation struct {
	requestID      [16]byte
	content, email [sha256.Size]byte
	outcome        *record // nil: a begin
	now            int64

	verdict verdict
	known   record
	err     error
	done    chan struct{}
}

const schema = `
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS email (digest BLOB PRIMARY KEY, attempts INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS request (
  id INTEGER PRIMARY KEY, request_id BLOB NOT NULL UNIQUE, content BLOB NOT NULL, email BLOB NOT NULL, state INTEGER NOT NULL,
  intent TEXT NOT NULL, status TEXT NOT NULL, astra_request_id TEXT NOT NULL, created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS request_sending ON request (id) WHERE state = 1;`

func openLedger(path string) (*ledger, error) {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?_journal_mode=WAL&_synchronous=FULL&_locking_mode=EXCLUSIVE&_txlock=immediate&_cache_size=-65536"
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	l := &ledger{db: db, ops: make(chan *operation, 4*maxBatch), ended: make(chan struct{}), key: make([]byte, 32)}
	if _, err := rand.Read(l.key); err != nil {
		return nil, err
	}
	if _, err := db.Exec(schema); err != nil {
		return nil, err
	}
	if _, err := db.Exec("INSERT INTO setting VALUES ('key', ?) ON CONFLICT DO NOTHING", l.key); err != nil {
		return nil, err
	}
	if err := db.QueryRow("SELECT value FROM setting WHERE name = 'key'").Scan(&l.key); err != nil {
		return nil, err
	}
	// Nobody knows what became of what a former process had under way.
	if _, err := db.Exec("UPDATE request SET state = ? WHERE state = 1", unknown); err != nil {
		return nil, err
	}
	w, err := newWriter(db)
	if err != nil {
		return nil, err
	}
	go l.write(w)
	return l, nil
}

// close runs what is queued. No operation may follow.
func (l *ledger) close() {
	close(l.ops)
	<-l.ended
	_ = l.db.Close()
}

func (l *ledger) digest(domain string, bytes []byte) (d [sha256.Size]byte) {
	mac := hmac.New(sha256.New, l.key)
	mac.Write([]byte(domain))
	mac.Write(bytes)
	mac.Sum(d[:0])
	return d
}

func (l *ledger) begin(r *pb.CreateUserIntentRequest, now time.Time) (*operation, error) {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return nil, err
	}
	op := &operation{
		requestID: parseUUID(r.GetRequestId()), content: l.digest("content", content),
		email: l.digest("email", []byte(strings.ToLower(r.GetEmail()))), now: now.UnixMicro(), done: make(chan struct{}, 1),
	}
	return op, l.run(op)
}

func (l *ledger) finish(begun *operation, outcome record, now time.Time) error {
	return l.run(&operation{
		requestID: begun.requestID, email: begun.email, outcome: &outcome, now: now.UnixMicro(), done: make(chan struct{}, 1),
	})
}

func (l *ledger) run(op *operation) error {
	l.ops <- op
	<-op.done
	return op.err
}

// ---- the writer

type writer struct {
	conn                                                                *sql.Conn
	all                                                                 []*sql.Stmt
	start, commit, rollback, find, attempts, add, count, insert, update *sql.Stmt
}

func newWriter(db *sql.DB) (*writer, error) {
	w := &writer{}
	ctx := context.Background()
	var err error
	if w.conn, err = db.Conn(ctx); err != nil {
		return nil, err
	}
	for _, one := range []struct {
		statement **sql.Stmt
		sql       string
	}{
		{&w.start, "BEGIN IMMEDIATE"},
		{&w.commit, "COMMIT"},
		{&w.rollback, "ROLLBACK"},
		{&w.find, "SELECT content, state, intent, status, astra_request_id, created_at FROM request WHERE request_id = ?"},
		{&w.attempts, "SELECT attempts FROM email WHERE digest = ?"},
		{&w.add, "INSERT INTO email VALUES (?, 1) ON CONFLICT DO UPDATE SET attempts = attempts + 1"},
		{&w.count, "UPDATE email SET attempts = attempts - 1 WHERE digest = ?"},
		{&w.insert, "INSERT INTO request (request_id, content, email, state, intent, status, astra_request_id, created_at, " +
			"updated_at) VALUES (?1, ?2, ?3, 1, '', '', '', ?4, ?4) ON CONFLICT (request_id) DO UPDATE SET state = 1"},
		{&w.update, "UPDATE request SET state = ?2, intent = ?3, status = ?4, astra_request_id = ?5, updated_at = ?6 " +
			"WHERE request_id = ?1"},
	} {
		if *one.statement, err = w.conn.PrepareContext(ctx, one.sql); err != nil {
			return nil, err
		}
		w.all = append(w.all, *one.statement)
	}
	return w, nil
}

func (w *writer) close() {
	for _, statement := range w.all {
		_ = statement.Close()
	}
	_ = w.conn.Close()
}

func (l *ledger) write(w *writer) {
	defer close(l.ended)
	defer w.close()
	batch := make([]*operation, 0, maxBatch)
	for first := range l.ops {
		batch = append(batch[:0], first)
		for more := true; more && len(batch) < maxBatch; {
			select {
			case op, open := <-l.ops:
				if more = open; open {
					batch = append(batch, op)
				}
			default:
				more = false
			}
		}
		err := w.transact(batch)
		for _, op := range batch {
			if err != nil {
				op.err = errUnavailable
			}
			op.done <- struct{}{}
		}
	}
}

func (w *writer) transact(batch []*operation) error {
	if _, err := w.start.Exec(); err != nil {
		return err
	}
	for _, op := range batch {
		apply := w.applyBegin
		if op.outcome != nil {
			apply = w.applyFinish
		}
		if err := apply(op); err != nil {
			_, _ = w.rollback.Exec()
			return err
		}
	}
	_, err := w.commit.Exec()
	if err != nil {
		_, _ = w.rollback.Exec()
	}
	return err
}

func (w *writer) applyBegin(op *operation) error {
	var content []byte
	known := &op.known
	err := w.find.QueryRow(op.requestID[:]).Scan(
		&content, &known.state, &known.intent, &known.status, &known.requestID, &known.createdAt)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err == nil && !hmac.Equal(content, op.content[:]) {
		op.verdict = isOther
		return nil
	}
	if err == nil && known.state != released {
		op.verdict = isRecorded
		return nil
	}
	attempts := 0
	if err := w.attempts.QueryRow(op.email[:]).Scan(&attempts); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if attempts >= attemptLimit {
		op.verdict = isSpent
		return nil
	}
	if _, err := w.add.Exec(op.email[:]); err != nil {
		return err
	}
	_, err = w.insert.Exec(op.requestID[:], op.content[:], op.email[:], op.now)
	return err
}

func (w *writer) applyFinish(op *operation) error {
	o := op.outcome
	if o.state == released {
		if _, err := w.count.Exec(op.email[:]); err != nil {
			return err
		}
	}
	_, err := w.update.Exec(op.requestID[:], o.state, o.intent, o.status, o.requestID, op.now)
	return err
}
