package main

import (
	"encoding/hex"
	"net/netip"
	"regexp"
	"strings"
	"time"
	"unicode"

	pb "example.com/userintent/userintentv1"
)

// rules is the contract's table of fields, in its order. A field may have two rows; the second is looked at only when the
// first holds.
var rules = []struct {
	field string
	holds func(*pb.CreateUserIntentRequest, time.Time) bool
}{
	{"request_id", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isUUID(r.GetRequestId()) }},
	{"email", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isEmail(r.GetEmail()) }},
	{"phone", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isPhone(r.GetPhone()) }},
	{"first_name", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isText(r.GetFirstName(), 100, true) }},
	{"last_name", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isText(r.GetLastName(), 100, true) }},
	{"preferred_first_name", func(r *pb.CreateUserIntentRequest, _ time.Time) bool {
		return isText(r.GetPreferredFirstName(), 100, false)
	}},
	{"preferred_last_name", func(r *pb.CreateUserIntentRequest, _ time.Time) bool {
		return isText(r.GetPreferredLastName(), 100, false)
	}},
	{"preferred_pronouns", func(r *pb.CreateUserIntentRequest, _ time.Time) bool {
		return isText(r.GetPreferredPronouns(), 100, false)
	}},
	{"address1", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isText(r.GetAddress1(), 100, true) }},
	{"address1", func(r *pb.CreateUserIntentRequest, _ time.Time) bool {
		return !namesPOBox(r.GetAddress1()) && !isBareBox(r.GetAddress1())
	}},
	{"address2", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isText(r.GetAddress2(), 100, false) }},
	{"address2", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return !namesPOBox(r.GetAddress2()) }},
	{"city", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isText(r.GetCity(), 100, true) }},
	{"state", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return uspsCodes[r.GetState()] }},
	{"postal_code", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isPostalCode(r.GetPostalCode()) }},
	{"date_of_birth", func(r *pb.CreateUserIntentRequest, now time.Time) bool {
		if r.GetDateOfBirth() == "" {
			return !needsBirthday(r.GetVerificationType())
		}
		return isBirthday(r.GetDateOfBirth(), now)
	}},
	{"ssn_last_four", func(r *pb.CreateUserIntentRequest, _ time.Time) bool {
		four := r.GetSsnLastFour()
		if four == "" {
			return !needsSSN(r.GetVerificationType())
		}
		return len(four) == 4 && allDigits(four) && four != "0000"
	}},
	{"ip_address", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isPublicIP(r.GetIpAddress()) }},
	{"verification_type", func(r *pb.CreateUserIntentRequest, _ time.Time) bool {
		_, known := pb.VerificationType_name[int32(r.GetVerificationType())]
		return known
	}},
	{"metadata", func(r *pb.CreateUserIntentRequest, _ time.Time) bool { return isMetadata(r.GetMetadata()) }},
	{"supersedes_request_id", func(r *pb.CreateUserIntentRequest, _ time.Time) bool {
		return r.GetSupersedesRequestId() == "" || isUUID(r.GetSupersedesRequestId())
	}},
}

// violations names the broken fields, each once.
func violations(r *pb.CreateUserIntentRequest, now time.Time) []string {
	var broken []string
	for _, rule := range rules {
		if len(broken) > 0 && broken[len(broken)-1] == rule.field {
			continue
		}
		if !rule.holds(r, now) {
			broken = append(broken, rule.field)
		}
	}
	return broken
}

func needsSSN(t pb.VerificationType) bool {
	return t == pb.VerificationType_VERIFICATION_TYPE_UNSPECIFIED || t == pb.VerificationType_VERIFICATION_TYPE_VERIFIED
}

func needsBirthday(t pb.VerificationType) bool {
	return needsSSN(t) || t == pb.VerificationType_VERIFICATION_TYPE_UNVERIFIED
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func allDigits(text string) bool {
	for i := range len(text) {
		if !isDigit(text[i]) {
			return false
		}
	}
	return true
}

func isUUID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i := range len(text) {
		c := text[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f'):
			return false
		}
	}
	return true
}

// parseUUID is of one that isUUID.
func parseUUID(text string) (id [16]byte) {
	_, _ = hex.Decode(id[:], []byte(strings.ReplaceAll(text, "-", "")))
	return id
}

func isEmail(text string) bool {
	if len(text) > 254 {
		return false
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return false
		}
	}
	local, domain, found := strings.Cut(text, "@")
	// Two or more labels, none empty: a dot inside, none at an end, no two in a row.
	return found && len(local) >= 1 && len(local) <= 64 && !strings.Contains(domain, "@") &&
		strings.Contains(domain, ".") && domain[0] != '.' && domain[len(domain)-1] != '.' && !strings.Contains(domain, "..")
}

func isPhone(text string) bool {
	return len(text) == 12 && strings.HasPrefix(text, "+1") && text[2] >= '2' && allDigits(text[2:])
}

// isText: valid UTF-8, which the decoder saw to, of at most so many characters, none of them a control or one that can
// change the order of reading.
func isText(text string, most int, required bool) bool {
	characters, blank := 0, true
	for _, c := range text {
		characters++
		if isUnsafe(c) {
			return false
		}
		if blank && !unicode.IsSpace(c) {
			blank = false
		}
	}
	return characters <= most && (!required || !blank)
}

func isUnsafe(c rune) bool {
	return c < ' ' || (c >= 0x7f && c <= 0x9f) || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069)
}

func isPostalCode(text string) bool {
	switch len(text) {
	case 5:
		return allDigits(text)
	case 10:
		return text[5] == '-' && allDigits(text[:5]) && allDigits(text[6:])
	}
	return false
}

var firstBirthday = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)

func isBirthday(text string, now time.Time) bool {
	day, err := time.Parse(time.DateOnly, text)
	return err == nil && len(text) == 10 && !day.Before(firstBirthday) && !day.After(now)
}

func isMetadata(metadata map[string]string) bool {
	if len(metadata) > maxMetadataKeys {
		return false
	}
	for key, value := range metadata {
		if !isMetadataKey(key) || value == "" || !isText(value, 256, false) {
			return false
		}
	}
	return true
}

func isMetadataKey(key string) bool {
	if key == "" || len(key) > 64 || key == attemptIDKey {
		return false
	}
	for i := range len(key) {
		c := key[i]
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// States, DC, territories, freely associated states, military.
var uspsCodes = func() map[string]bool {
	codes := map[string]bool{}
	for _, code := range strings.Fields(`
		AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA RI
		SC SD TN TX UT VT VA WA WV WI WY DC AS GU MP PR VI FM MH PW AA AE AP`) {
		codes[code] = true
	}
	return codes
}()

// Lines without these letters in a row, spaces and signs left out, name no box: a look that costs less than a match.
func mayNameBox(line string) bool {
	var before, last byte
	for i := range len(line) {
		c := line[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if !isDigit(c) && (c < 'a' || c > 'z') {
			continue
		}
		afterO := last == 'o' || last == '0'
		switch {
		case c == 'x' && (last == 'b' || (afterO && before == 'b')),
			c == 'b' && afterO && before == 'p',
			c == 'w' && last == 'a' && before == 'r',
			c == 'r' && last == 'w' && before == 'd',
			c == 'd' && last == 'a' && before == 't':
			return true
		}
		before, last = last, c
	}
	return false
}

const (
	gap     = `[^\pL\pN]{0,6}` // between words
	number  = gap + `(?:n[or]|num|number)?` + gap + `\pN`
	wordEnd = `(?:[^\pL\pM]|$)`
	po      = `(?:p` + gap + `[o0]|post` + gap + `(?:office|offc|ofc|off))`
	box     = `(?:b[o0]x|bx|drawer|dwr)`
)

var (
	poBox = regexp.MustCompile(`(?i)(?:^|[^\pL\pM])(?:` + po + gap + box + wordEnd + `|p` + gap + `[o0]` + gap + `b` + number +
		`|post(?:al)?` + gap + `box` + number + `|apartado` + gap + `(?:postal)?` + number + `)`)
	bareBox = regexp.MustCompile(`(?i)^[^\pL\pN]*b[o0]x[^\pL\pN]*(?:n[or]|num|number)?[^\pL\pN]*\pN+[^\pL\pN]*\pL?[^\pL\pN]*$`)
)

func namesPOBox(line string) bool { return mayNameBox(line) && poBox.MatchString(line) }
func isBareBox(line string) bool  { return mayNameBox(line) && bareBox.MatchString(line) }

// The IANA special-purpose registries; multicast; and of IPv6 only 2000::/3 is global unicast.
var (
	special4 = prefixes(`0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
		192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
		203.0.113.0/24 224.0.0.0/4 240.0.0.0/4`)
	special6 = prefixes(`2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20`)
	global6  = netip.MustParsePrefix("2000::/3")
)

func prefixes(list string) []netip.Prefix {
	var parsed []netip.Prefix
	for _, text := range strings.Fields(list) {
		parsed = append(parsed, netip.MustParsePrefix(text))
	}
	return parsed
}

func isPublicIP(text string) bool {
	address, err := netip.ParseAddr(text)
	if err != nil || address.Zone() != "" {
		return false
	}
	special := special4
	if address.Is6() {
		if !global6.Contains(address) {
			return false
		}
		special = special6
	}
	for _, prefix := range special {
		if prefix.Contains(address) {
			return false
		}
	}
	return true
}
