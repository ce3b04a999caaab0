package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// The checks of POST /v1/user_intent. Refusals name fields and never quote a value, so they are free of personal data.

// person is what the sandbox keeps of an accepted body: enough to answer GET, not more.
type person struct {
	Email, Phone, FirstName, LastName               string
	PreferredFirst, PreferredLast, PreferredPronoun string
	KycType                                         string
	Metadata                                        json.RawMessage
	AttemptID                                       string
}

type fieldRule struct {
	name     string
	required bool
	check    func(value string) bool
	complain string
	store    func(p *person, value string)
}

var (
	emailForm  = regexp.MustCompile(`^[^@\s]+@[^@\s.]+(\.[^@\s.]+)+$`)
	postalForm = regexp.MustCompile(`^[0-9]{5}(-[0-9]{4})?$`)
	poBoxForm  = regexp.MustCompile(`(?i)\b(p\.?\s*o\.?|post\s+office)\s*box\b`)
)

func digits(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isPhone(s string) bool { return strings.HasPrefix(s, "+1") && digits(s[2:], 10) }

func isState(s string) bool {
	return len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

func isDate(s string) bool {
	_, err := time.Parse("2006-01-02", s)
	return err == nil
}

// isStreet asks the slow pattern only where the word is there at all.
func isStreet(s string) bool {
	return !strings.Contains(strings.ToLower(s), "box") || !poBoxForm.MatchString(s)
}

func isMetadataKey(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 64
}

func isKycType(s string) bool { return s == "verified" || s == "unverified" || s == "receive-only" }

// In the order of Astra's page. date_of_birth and ssn are required by kyc_type; metadata is an object and has its own check.
var fieldRules = []fieldRule{
	{"email", true, emailForm.MatchString, "must be an e-mail address", func(p *person, v string) { p.Email = v }},
	{"phone", true, isPhone, "must be +1 and ten digits", func(p *person, v string) { p.Phone = v }},
	{"first_name", true, nil, "", func(p *person, v string) { p.FirstName = v }},
	{"last_name", true, nil, "", func(p *person, v string) { p.LastName = v }},
	{"preferred_first_name", false, nil, "", func(p *person, v string) { p.PreferredFirst = v }},
	{"preferred_last_name", false, nil, "", func(p *person, v string) { p.PreferredLast = v }},
	{"preferred_pronouns", false, nil, "", func(p *person, v string) { p.PreferredPronoun = v }},
	{"address1", true, isStreet, "must not be a PO box", nil},
	{"address2", false, isStreet, "must not be a PO box", nil},
	{"city", true, nil, "", nil},
	{"state", true, isState, "must be two capital letters", nil},
	{"postal_code", true, postalForm.MatchString, "must be a ZIP code", nil},
	{"date_of_birth", false, isDate, "must be a date YYYY-MM-DD", nil},
	{"ssn", false, func(s string) bool { return digits(s, 4) }, "must be the last four digits", nil},
	{"ip_address", true, func(s string) bool { return net.ParseIP(s) != nil }, "must be an IP address", nil},
	{"kyc_type", false, isKycType, "must be verified, unverified or receive-only", func(p *person, v string) { p.KycType = v }},
}

var fieldIndex = func() map[string]int {
	index := make(map[string]int, len(fieldRules))
	for i, rule := range fieldRules {
		index[rule.name] = i
	}
	return index
}()

// emailAndAttempt reads the two values by which faults match and the account is kept, from any JSON object however wrong.
func emailAndAttempt(body []byte) (email, attemptID string) {
	_ = eachMember(body, func(key string, value []byte) {
		switch key {
		case "email":
			email, _ = jsonString(value)
		case "metadata":
			_ = eachMember(value, func(key string, value []byte) {
				if key == "gateway_attempt_id" {
					attemptID, _ = jsonString(value)
				}
			})
		}
	})
	return email, attemptID
}

// validateIntent returns the accepted person, or the sentence that the 400 answer carries.
func validateIntent(body []byte, kycDelegation bool) (person, string) {
	var p person
	var seen [32]bool
	var complaint string
	refuse := func(format string, args ...interface{}) {
		if complaint == "" {
			complaint = fmt.Sprintf(format, args...)
		}
	}
	sawMetadata := false
	err := eachMember(body, func(key string, value []byte) {
		if key == "metadata" {
			if sawMetadata {
				refuse("metadata: given twice")
			}
			sawMetadata = true
			p.Metadata = append(json.RawMessage(nil), value...)
			if what := validateMetadata(value, &p); what != "" {
				refuse("metadata: %s", what)
			}
			return
		}
		i, known := fieldIndex[key]
		if !known {
			refuse("unknown field")
			return
		}
		rule := &fieldRules[i]
		if seen[i] {
			refuse("%s: given twice", rule.name)
		}
		seen[i] = true
		text, isString := jsonString(value)
		switch {
		case !isString:
			refuse("%s: must be a string", rule.name) // also null, which Astra documents as 400 for address2
		case rule.name == "address2" && text == "":
		case strings.TrimSpace(text) == "":
			refuse("%s: must not be blank", rule.name)
		case rule.check != nil && !rule.check(text):
			refuse("%s: %s", rule.name, rule.complain)
		case rule.store != nil:
			rule.store(&p, text)
		}
	})
	if err != nil {
		return p, "The request body is not a JSON object"
	}
	for i, rule := range fieldRules {
		required := rule.required
		switch rule.name {
		case "date_of_birth":
			required = p.KycType != "receive-only"
		case "ssn":
			required = (p.KycType == "" || p.KycType == "verified") && !kycDelegation
		}
		if required && !seen[i] {
			refuse("%s: is required", rule.name)
		}
	}
	if p.KycType == "" {
		p.KycType = "verified"
	}
	return p, complaint
}

func validateMetadata(object []byte, p *person) string {
	complaint := ""
	refuse := func(what string) {
		if complaint == "" {
			complaint = what
		}
	}
	keys := map[string]bool{}
	err := eachMember(object, func(key string, value []byte) {
		if keys[key] {
			refuse("a key is given twice")
		}
		keys[key] = true
		text, isString := jsonString(value)
		length := utf8.RuneCountInString(text)
		switch {
		case !isMetadataKey(key):
			refuse("a key is not 1 to 64 of a-z A-Z 0-9 _ . -")
		case !isString:
			refuse("a value is not a string")
		case length < 1 || length > 256:
			refuse("a value is not 1 to 256 characters")
		case key == "gateway_attempt_id":
			p.AttemptID = text
		}
	})
	if err != nil {
		return "must be an object"
	}
	if len(keys) > 25 {
		return "more than 25 keys"
	}
	return complaint
}

func jsonString(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]), true
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		return "", false
	}
	return text, true
}

type notAnObject struct{}

func (notAnObject) Error() string { return "not a JSON object" }

// eachMember calls visit for every member of a JSON object, in order, duplicates included. encoding/json alone will not do: it
// matches struct fields whatever their case and hides duplicate keys, and a stand-in that accepted those would hide faults.
func eachMember(text []byte, visit func(key string, value []byte)) error {
	if !utf8.Valid(text) || !json.Valid(text) {
		return notAnObject{}
	}
	at := skipSpace(text, 0)
	if text[at] != '{' {
		return notAnObject{}
	}
	at = skipSpace(text, at+1)
	for text[at] != '}' { // the text is valid JSON, so every step below stays inside it
		end := skipValue(text, at)
		key, _ := jsonString(text[at:end])
		at = skipSpace(text, end)  // at the colon
		at = skipSpace(text, at+1) // at the value
		end = skipValue(text, at)
		visit(key, text[at:end])
		at = skipSpace(text, end)
		if text[at] == ',' {
			at = skipSpace(text, at+1)
		}
	}
	return nil
}

func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r') {
		at++
	}
	return at
}

func skipValue(text []byte, at int) int {
	depth := 0
	for at < len(text) {
		switch text[at] {
		case '"':
			for at++; text[at] != '"'; at++ {
				if text[at] == '\\' {
					at++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return at // the end of a number or word inside an enclosing object
			}
			depth--
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return at
			}
			at++
			continue
		default:
			at++
			continue
		}
		at++
		if depth == 0 {
			return at
		}
	}
	return at
}
