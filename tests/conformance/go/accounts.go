package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"time"
)

var web = &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{}} // no proxy: these addresses are local

// fetch makes an HTTP request; any status but 2xx is an error. out: what the JSON answer goes to, where it is wanted.
func fetch(method, address string, body []byte, out any) error {
	if method == "" {
		method = http.MethodPost
	}
	if body == nil && method != http.MethodGet {
		body = []byte("{}")
	}
	request, err := http.NewRequest(method, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := web.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: status %d: %.200s", method, request.URL.Path, response.StatusCode, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

type post struct {
	Body any
}

type account struct {
	Posts []post
	Gets  []any
}

func (r *run) account(email string) (account, error) {
	var out account
	err := fetch(http.MethodGet, r.plan.Sandbox+"/accounting?email="+url.QueryEscape(email), nil, &out)
	return out, err
}

func (r *run) posts(email string) ([]post, error) {
	account, err := r.account(email)
	return account.Posts, err
}

// checkAccounts compares what really arrived with what the scenario says.
func (r *run) checkAccounts(s scenario) error {
	for email, want := range s.Posts {
		posts, err := r.posts(email)
		if err != nil {
			return err
		}
		if len(posts) != want {
			return fmt.Errorf("posts: expected %d, got %d", want, len(posts))
		}
	}
	for email, want := range s.Gets {
		account, err := r.account(email)
		if err != nil {
			return err
		}
		if len(account.Gets) != want {
			return fmt.Errorf("gets: expected %d, got %d", want, len(account.Gets))
		}
	}
	for email, members := range s.Bodies {
		posts, err := r.posts(email)
		if err != nil {
			return err
		}
		if len(posts) == 0 {
			return fmt.Errorf("bodies: no post")
		}
		body, _ := posts[len(posts)-1].Body.(map[string]any)
		for name, want := range members {
			if got, found := body[name]; !found || !reflect.DeepEqual(want, got) {
				return fmt.Errorf("bodies: member %s is another one (there: %v)", name, found)
			}
		}
	}
	for email, want := range s.Calls {
		var calls struct {
			Count int
			IDs   []string
		}
		if err := fetch(http.MethodGet, r.plan.Control+"/calls?email="+url.QueryEscape(email), nil, &calls); err != nil {
			return err
		}
		if calls.Count != want || want > 0 && len(calls.IDs) != 1 {
			return fmt.Errorf("calls: expected %d with one id, got %d with %d", want, calls.Count, len(calls.IDs))
		}
	}
	return nil
}
