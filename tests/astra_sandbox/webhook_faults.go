package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// wish is how a webhook differs from the one that Astra would send: of a fault, or of POST /webhooks/send.
type wish struct {
	Lose         bool            `json:"lose"`
	Duplicate    int             `json:"duplicate"`
	DelayMs      int             `json:"delay_ms"`
	BeforeAnswer bool            `json:"before_answer"`
	Reorder      bool            `json:"reorder"`
	ReplayMs     int             `json:"replay_ms"`
	ByteMs       int             `json:"byte_ms"`
	Key          string          `json:"key"`
	Form         string          `json:"form"`
	Type         string          `json:"type"`
	WebhookID    string          `json:"webhook_id"`
	ResourceID   string          `json:"resource_id"`
	AttemptID    *string         `json:"attempt_id"`
	Metadata     json.RawMessage `json:"metadata"`
	Extra        json.RawMessage `json:"extra"`
	Body         *string         `json:"body"`
	Signature    *string         `json:"signature"`
}

const maxCopies = 1000

func (w *wish) check() error {
	switch {
	case w.Duplicate < 0 || w.Duplicate > maxCopies:
		return fmt.Errorf("duplicate is not 0 to %d", maxCopies)
	case w.DelayMs < 0 || w.ReplayMs < 0 || w.ByteMs < 0:
		return errors.New("a number is negative")
	case w.Key != "" && w.Key != "current" && w.Key != "previous" && w.Key != "wrong":
		return fmt.Errorf("unknown key %q", w.Key)
	case w.Form != "" && !webhookForms[w.Form]:
		return fmt.Errorf("unknown form %q", w.Form)
	case w.Metadata != nil && !isObject(w.Metadata):
		return errors.New("metadata is not an object")
	case w.Extra != nil && !isObject(w.Extra):
		return errors.New("extra is not an object")
	case w.Lose && (w.BeforeAnswer || w.Reorder || w.Duplicate > 0 || w.ReplayMs > 0):
		return errors.New("what is lost is not sent")
	case w.Reorder && w.BeforeAnswer:
		return errors.New("reorder and before_answer exclude each other")
	}
	return nil
}

// webhookFault changes the webhooks that it matches, as POST /webhooks/faults takes it.
type webhookFault struct {
	Match struct {
		Email    string `json:"email"`
		IntentID string `json:"intent_id"`
		Status   string `json:"status"`
		Nth      int    `json:"nth"`
		Every    int    `json:"every"`
	} `json:"match"`
	Times int `json:"times"`
	wish

	id    int
	seen  int // webhooks that matched e-mail, intent and status since it was added
	fired int
}

func parseWebhookFault(r io.Reader) (*webhookFault, error) {
	f := &webhookFault{}
	if err := decodeStrict(r, f); err != nil {
		return nil, err
	}
	if f.Match.Nth < 0 || f.Match.Every < 0 || f.Times < 0 {
		return nil, errors.New("a number is negative")
	}
	if f.Match.Nth > 0 && f.Match.Every > 0 {
		return nil, errors.New("nth and every exclude each other")
	}
	return f, f.check()
}

// matches counts the webhook, and says whether the fault acts on it.
func (f *webhookFault) matches(e *event) bool {
	if f.Match.Email != "" && !strings.EqualFold(f.Match.Email, e.email) || f.Match.IntentID != "" && f.Match.IntentID != e.intentID ||
		f.Match.Status != "" && f.Match.Status != e.status {
		return false
	}
	f.seen++
	return (f.Match.Nth == 0 || f.seen == f.Match.Nth) && (f.Match.Every == 0 || f.seen%f.Match.Every == 0) &&
		(f.Times == 0 || f.fired < f.Times)
}

type webhookFaultView struct {
	ID    int `json:"id"`
	Seen  int `json:"seen"`
	Fired int `json:"fired"`
}
