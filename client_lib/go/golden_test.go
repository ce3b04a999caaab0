package userintent

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	pb "example.com/userintent/userintentv1"
)

// The same URLs and refusals as the gateway and the other libraries, by the cases that all share.
func TestGoldenAuthorizationURLs(t *testing.T) {
	text, err := os.ReadFile("../../tests/conformance/authorization_urls.json")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the shared cases are not here")
	}
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct {
			Name, Status, State, Page, URL, Reason string
			AppURL                                 string `json:"app_url"`
			ClientID                               string `json:"client_id"`
			UserIntentID                           string `json:"user_intent_id"`
			UserID                                 string `json:"user_id"`
			RedirectURI                            string `json:"redirect_uri"`
			Violations                             []string
		}
	}
	if err := json.Unmarshal(text, &golden); err != nil || len(golden.Cases) < 50 {
		t.Fatalf("%d cases, %v", len(golden.Cases), err)
	}
	for _, one := range golden.Cases {
		t.Run(one.Name, func(t *testing.T) {
			status, known := pb.UserIntentStatus_value["USER_INTENT_STATUS_"+one.Status]
			if !known {
				t.Fatalf("status %q", one.Status)
			}
			intent := &pb.UserIntent{Id: one.UserIntentID, UserId: one.UserID, Status: pb.UserIntentStatus(status)}
			url, page, err := AuthorizationURL(one.AppURL, one.ClientID, intent, one.RedirectURI, one.State)
			if one.Reason != "" {
				e := failure(t, err)
				var fields []string
				for _, violation := range e.Violations {
					fields = append(fields, violation.Field)
				}
				equal(t, "reason", string(e.Reason), one.Reason)
				equal(t, "violations", strings.Join(fields, ","), strings.Join(one.Violations, ","))
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "url", url, one.URL)
			equal(t, "page", strings.TrimPrefix(page.String(), "AUTHORIZATION_PAGE_"), one.Page)
		})
	}
}
