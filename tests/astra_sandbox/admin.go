package main

import (
	"encoding/json"
	"net/http"
)

// adminHandler is the plain-HTTP side: scripts faults, reads the account.
func adminHandler(sb *sandbox, f *front) http.Handler {
	mux := http.NewServeMux()
	on := func(path string, methods map[string]http.HandlerFunc) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != path {
				reply(w, http.StatusNotFound, map[string]string{"error": "no such path"})
			} else if handle := methods[r.Method]; handle != nil {
				handle(w, r)
			} else {
				reply(w, http.StatusMethodNotAllowed, map[string]string{"error": "method not allowed"})
			}
		})
	}
	refuse := func(w http.ResponseWriter, err error) {
		reply(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
	}
	on("/healthz", map[string]http.HandlerFunc{"GET": func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]string{"status": "ok"})
	}})
	on("/faults", map[string]http.HandlerFunc{
		"POST": func(w http.ResponseWriter, r *http.Request) {
			parsed, err := parseFault(r.Body)
			if err != nil {
				refuse(w, err)
				return
			}
			reply(w, http.StatusOK, map[string]int{"id": sb.faults.add(parsed)})
		},
		"GET": func(w http.ResponseWriter, _ *http.Request) {
			reply(w, http.StatusOK, map[string][]faultView{"faults": sb.faults.view()})
		},
		"DELETE": func(w http.ResponseWriter, _ *http.Request) {
			sb.faults.clear()
			reply(w, http.StatusOK, struct{}{})
		},
	})
	on("/accounting", map[string]http.HandlerFunc{"GET": func(w http.ResponseWriter, r *http.Request) {
		view := sb.current().view(r.URL.Query().Get("email"), r.URL.Query().Get("intent_id"))
		view.Open = f.openConnections()
		reply(w, http.StatusOK, view)
	}})
	on("/accounting/summary", map[string]http.HandlerFunc{"GET": func(w http.ResponseWriter, _ *http.Request) {
		view := sb.current().summary()
		view.Open = f.openConnections()
		reply(w, http.StatusOK, view)
	}})
	on("/intent", map[string]http.HandlerFunc{"POST": func(w http.ResponseWriter, r *http.Request) {
		changed, err := sb.script(r.Body)
		if err != nil {
			refuse(w, err)
			return
		}
		reply(w, http.StatusOK, map[string]int{"intents": changed})
	}})
	on("/reset", map[string]http.HandlerFunc{"POST": func(w http.ResponseWriter, _ *http.Request) {
		sb.reset()
		reply(w, http.StatusOK, struct{}{})
	}})
	on("/listener", map[string]http.HandlerFunc{"POST": func(w http.ResponseWriter, r *http.Request) {
		var want struct {
			Mode string `json:"mode"`
		}
		if err := decodeStrict(r.Body, &want); err != nil {
			refuse(w, err)
			return
		}
		if err := f.setMode(want.Mode); err != nil {
			refuse(w, err)
			return
		}
		reply(w, http.StatusOK, want)
	}})
	on("/drop_connections", map[string]http.HandlerFunc{"POST": func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]int{"dropped": f.dropConnections()})
	}})
	onWebhooks(on, refuse, sb)
	return mux
}

func reply(w http.ResponseWriter, status int, value interface{}) {
	body, err := json.Marshal(value)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"cannot be shown"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
