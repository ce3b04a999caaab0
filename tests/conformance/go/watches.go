package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"example.com/userintent"
	pb "example.com/userintent/userintentv1"
)

const (
	eventPatience = 30 * time.Second
	stopPatience  = 15 * time.Second
)

// watching is a watch with a goroutine of its own.
type watching struct {
	watch  *userintent.Watch
	cancel context.CancelFunc
	events chan outcome
	ended  chan error // one entry, when the loop is over
	client *userintent.Client
	start  time.Time
}

func (r *run) watch(s step) error {
	client, err := r.client(s.Client)
	if err != nil {
		return err
	}
	var options []userintent.CallOption
	if s.ResumeOf != "" {
		earlier, found := r.watches[s.ResumeOf]
		if !found {
			return fmt.Errorf("no watch %q", s.ResumeOf)
		}
		options = append(options, userintent.WithResumeToken(earlier.watch.ResumeToken()))
	} else if s.ResumeToken != nil {
		options = append(options, userintent.WithResumeToken(s.ResumeToken))
	}
	ids := make([]string, 0, len(s.RequestIDs))
	for _, id := range s.RequestIDs {
		ids = append(ids, r.named(id, "request_id"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watching{
		watch: client.Watch(ctx, ids, options...), cancel: cancel, events: make(chan outcome, 10000), ended: make(chan error, 1), client: client, start: time.Now(),
	}
	r.watches[s.Name] = w
	go func() {
		var last error
		for event, err := range w.watch.Events() {
			if err != nil {
				last = err
				break
			}
			w.events <- eventOf(event)
		}
		w.ended <- last
	}()
	return nil
}

func eventOf(event *userintent.WatchEvent) outcome {
	kind := map[userintent.WatchEventKind]string{userintent.WatchChanged: "changed", userintent.WatchSynced: "synced", userintent.WatchReset: "reset"}[event.Kind]
	out := outcome{fields: map[string]any{"event": kind, "token": len(event.ResumeToken) > 0, "request_id": "", "state": "", "reason": ""}, texts: forms(event)}
	maps.Copy(out.fields, intentFields(event.Changed.GetUserIntent()))
	if event.Changed.GetUserIntent() == nil {
		out.fields["status"], out.fields["verification_type"] = "", ""
	}
	if event.Changed != nil {
		out.fields["request_id"] = event.Changed.GetRequestId()
		out.fields["state"] = strings.TrimPrefix(event.Changed.GetState().String(), "CREATION_STATE_")
		out.fields["reason"] = event.Changed.GetError().GetReason()
		out.texts = append(out.texts, forms(event.Changed)...)
	}
	return out
}

// events holds what the watch hands out to the list of the step.
func (r *run) events(s step, w *watching) error {
	var entries []map[string]any
	if err := json.Unmarshal(s.Expect, &entries); err != nil {
		return err
	}
	for number, entry := range entries {
		var passed []string
		for met := false; !met; {
			timer := time.NewTimer(eventPatience)
			select {
			case event := <-w.events:
				timer.Stop()
				if err := r.checkTexts(event.texts); err != nil {
					return err
				}
				err := r.compare(event.fields, entry)
				if met = err == nil; met {
					r.outcomes[s.Name] = event
					break
				}
				if s.Exact || event.fields["event"] != "changed" {
					return fmt.Errorf("entry %d: %w; event %v", number, err, event.fields)
				}
				passed = append(passed, fmt.Sprintf("%v (%v)", event.fields["state"], event.fields["status"]))
			case err := <-w.ended:
				w.ended <- err
				if len(w.events) == 0 {
					return fmt.Errorf("entry %d: the watch ended: %v; passed over %v", number, err, passed)
				}
			case <-timer.C:
				return fmt.Errorf("entry %d: no such event; passed over %v", number, passed)
			}
			timer.Stop()
		}
	}
	return nil
}

func (w *watching) stop() error {
	w.cancel()
	select {
	case err := <-w.ended:
		w.ended <- err
		return nil
	case <-time.After(stopPatience):
		return errors.New("the watch does not stop")
	}
}

func (r *run) watchEnded(s step, w *watching) (outcome, error) {
	select {
	case err := <-w.ended:
		w.ended <- err
		if err == nil {
			return outcome{}, errors.New("the watch ended without an error")
		}
		return r.ended(s, failed(w.client, err, w.start))
	case <-time.After(20 * time.Second):
		return outcome{}, errors.New("the watch does not end")
	}
}

func wait(ctx context.Context, client *userintent.Client, what, id string, names []string) outcome {
	start := time.Now()
	if what == "outcome" {
		creation, err := client.WaitForOutcome(ctx, id)
		if err != nil {
			return failed(client, err, start)
		}
		out := outcome{client: client, fields: none(start), texts: forms(creation)}
		maps.Copy(out.fields, intentFields(creation.GetUserIntent()))
		maps.Copy(out.fields, map[string]any{
			"ok": true, "code": "OK", "reason": creation.GetError().GetReason(), "request_id": id, "state": strings.TrimPrefix(creation.GetState().String(), "CREATION_STATE_"),
		})
		return out
	}
	var statuses []pb.UserIntentStatus
	for _, name := range names {
		statuses = append(statuses, pb.UserIntentStatus(pb.UserIntentStatus_value["USER_INTENT_STATUS_"+name]))
	}
	intent, err := client.WaitForStatus(ctx, id, statuses)
	if err != nil {
		return failed(client, err, start)
	}
	out := outcome{client: client, fields: none(start), texts: forms(intent)}
	maps.Copy(out.fields, intentFields(intent))
	maps.Copy(out.fields, map[string]any{"ok": true, "code": "OK", "request_id": id})
	return out
}

func (r *run) link(ctx context.Context, client *userintent.Client, s step) outcome {
	requestID := r.named(s.RequestID, "request_id")
	key := userintent.ByRequestID(requestID)
	if s.UserIntentID != nil {
		key = userintent.ByUserIntentID(r.named(*s.UserIntentID, "user_intent_id"))
	}
	var options []userintent.CallOption
	if s.MaxTries > 0 {
		options = append(options, userintent.WithMaxTries(s.MaxTries))
	}
	start := time.Now()
	response, err := client.GetAuthorizationURL(ctx, key, s.RedirectURI, s.State, options...)
	if err != nil {
		return failed(client, err, start)
	}
	out := outcome{client: client, fields: none(start), texts: append(forms(response), response.String())}
	maps.Copy(out.fields, intentFields(response.GetUserIntent()))
	maps.Copy(out.fields, map[string]any{"ok": true, "code": "OK", "request_id": requestID, "url": response.GetUrl(), "page": pageName(response.GetPage())})
	return out
}

// helper makes the URL without a call, for the intent that a call answered.
func (r *run) helper(s step) outcome {
	of := r.outcomes[s.Of].fields
	text := func(field string) string { value, _ := of[field].(string); return value }
	intent := &pb.UserIntent{Id: text("user_intent_id"), UserId: text("user_id"), Status: pb.UserIntentStatus(pb.UserIntentStatus_value["USER_INTENT_STATUS_"+text("status")])}
	start := time.Now()
	url, page, err := userintent.AuthorizationURL(s.AppURL, s.ClientID, intent, s.RedirectURI, s.State)
	if err != nil {
		return failed(nil, err, start)
	}
	out := outcome{fields: none(start)}
	maps.Copy(out.fields, intentFields(intent))
	maps.Copy(out.fields, map[string]any{"ok": true, "code": "OK", "url": url, "page": pageName(page)})
	return out
}

func pageName(page pb.AuthorizationPage) string {
	return strings.TrimPrefix(page.String(), "AUTHORIZATION_PAGE_")
}
