package main

import (
	"errors"
	"net/http"
	"time"
)

// When the sandbox sends a webhook by itself, and the admin calls about webhooks.

// standing is what a webhook is sent about: a change of it.
type standing struct{ status, userID string }

// created tells of a new intent, and of what the clock makes of it later.
func (s *sandbox) created(r *request, in *intent, status string) {
	if !s.webhooks.on() {
		return
	}
	r.wait = s.webhooks.notify(eventOf(in, status))
	account, id := r.entry.account, in.id
	if s.cfg.pendingFor > 0 {
		time.AfterFunc(s.cfg.pendingFor, func() { s.noticed(account, id) })
	}
}

// noticed tells that the intent stands elsewhere than the last time, if it does.
func (s *sandbox) noticed(a *account, id string) {
	in, status := a.news(id, s.statusByClock)
	if in != nil && s.webhooks.on() && a == s.current() {
		s.webhooks.notify(eventOf(in, status))
	}
}

func eventOf(in *intent, status string) *event {
	return &event{intentID: in.id, email: in.person.Email, status: status, metadata: in.person.Metadata}
}

// news gives the intent and its status if that, or its user_id, has changed since the last time.
func (a *account) news(id string, byClock func(*intent) string) (*intent, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := a.byID[id]
	if in == nil {
		return nil, ""
	}
	status := in.status(byClock)
	now := standing{status, in.review.userID}
	if now == in.told {
		return nil, ""
	}
	in.told = now
	return in, status
}

// summary counts deliveries; the answers by status, 0 for none, over all tries.
type webhookSummary struct {
	Webhooks int            `json:"webhooks"` // different ids
	Sent     int            `json:"sent"`     // deliveries with a 200
	Lost     int            `json:"lost"`
	GivenUp  int            `json:"given_up"`
	Waiting  int            `json:"waiting"`
	Tries    int            `json:"tries"`
	ByStatus map[string]int `json:"by_status"`
}

func (w *webhooks) summary() webhookSummary {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := webhookSummary{ByStatus: map[string]int{}}
	ids := map[string]bool{}
	for _, d := range w.round.list {
		ids[d.WebhookID] = true
		last := 0
		for _, t := range d.Tries {
			v.Tries++
			v.ByStatus[statusText(t.Status)]++
			last = t.Status
		}
		switch {
		case d.Lost:
			v.Lost++
		case !d.Done:
			v.Waiting++
		case last == http.StatusOK:
			v.Sent++
		default:
			v.GivenUp++
		}
	}
	v.Webhooks = len(ids)
	return v
}

// view is the account of the deliveries about this intent, or of all, in the order of their reasons.
func (w *webhooks) view(intentID string) []deliveryView {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := []deliveryView{}
	for _, d := range w.round.list {
		if intentID == "" || d.IntentID == intentID {
			all = append(all, d.snapshot())
		}
	}
	return all
}

// snapshot needs webhooks.mu.
func (d *delivery) snapshot() deliveryView {
	v := d.deliveryView
	v.Tries = append([]try{}, d.Tries...)
	return v
}

func (w *webhooks) addFault(f *webhookFault) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nextFault++
	f.id = w.nextFault
	w.round.faults = append(w.round.faults, f)
	return f.id
}

func (w *webhooks) clearFaults() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.round.faults = nil
}

func (w *webhooks) faultViews() []webhookFaultView {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := []webhookFaultView{}
	for _, f := range w.round.faults {
		all = append(all, webhookFaultView{f.id, f.seen, f.fired})
	}
	return all
}

// sendWebhook sends one by hand: POST /webhooks/send.
func (s *sandbox) sendWebhook(r *http.Request) (deliveryView, error) {
	var want struct {
		IntentID string `json:"intent_id"`
		Wait     bool   `json:"wait"`
		wish
	}
	var none deliveryView
	if err := decodeStrict(r.Body, &want); err != nil {
		return none, err
	}
	if err := want.check(); err != nil {
		return none, err
	}
	if want.Lose || want.BeforeAnswer || want.Reorder {
		return none, errors.New("lose, before_answer and reorder are of faults only")
	}
	e := &event{intentID: want.IntentID}
	if in, status := s.current().standingOf(want.IntentID, s.statusByClock); in != nil {
		e = eventOf(in, status)
	}
	d, err := s.webhooks.send(e, want.wish)
	if err != nil {
		return none, err
	}
	if want.Wait {
		select {
		case <-d.tried:
		case <-r.Context().Done():
		}
	}
	s.webhooks.mu.Lock()
	defer s.webhooks.mu.Unlock()
	return d.snapshot(), nil
}

// standingOf gives an intent and its status, nil where there is no such intent.
func (a *account) standingOf(id string, byClock func(*intent) string) (*intent, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := a.byID[id]
	if in == nil {
		return nil, ""
	}
	return in, in.status(byClock)
}

// onWebhooks adds the admin calls about webhooks.
func onWebhooks(on func(string, map[string]http.HandlerFunc), refuse func(http.ResponseWriter, error), sb *sandbox) {
	hooks := sb.webhooks
	on("/webhooks", map[string]http.HandlerFunc{
		"POST": func(w http.ResponseWriter, r *http.Request) {
			var want webhookSettings
			err := decodeStrict(r.Body, &want)
			if err == nil {
				err = hooks.set(want)
			}
			if err != nil {
				refuse(w, err)
				return
			}
			reply(w, http.StatusOK, struct{}{})
		},
		"GET": func(w http.ResponseWriter, r *http.Request) {
			reply(w, http.StatusOK, map[string][]deliveryView{"webhooks": hooks.view(r.URL.Query().Get("intent_id"))})
		},
	})
	on("/webhooks/summary", map[string]http.HandlerFunc{"GET": func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, hooks.summary())
	}})
	on("/webhooks/faults", map[string]http.HandlerFunc{
		"POST": func(w http.ResponseWriter, r *http.Request) {
			f, err := parseWebhookFault(r.Body)
			if err != nil {
				refuse(w, err)
				return
			}
			reply(w, http.StatusOK, map[string]int{"id": hooks.addFault(f)})
		},
		"GET": func(w http.ResponseWriter, _ *http.Request) {
			reply(w, http.StatusOK, map[string][]webhookFaultView{"faults": hooks.faultViews()})
		},
		"DELETE": func(w http.ResponseWriter, _ *http.Request) {
			hooks.clearFaults()
			reply(w, http.StatusOK, struct{}{})
		},
	})
	on("/webhooks/send", map[string]http.HandlerFunc{"POST": func(w http.ResponseWriter, r *http.Request) {
		sent, err := sb.sendWebhook(r)
		if err != nil {
			refuse(w, err)
			return
		}
		reply(w, http.StatusOK, sent)
	}})
}
