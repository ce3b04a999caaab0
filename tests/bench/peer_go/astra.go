package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	pb "example.com/userintent/userintentv1"
)

const (
	maxMetadataKeys = 25
	attemptIDKey    = "gateway_attempt_id"
	maxAnswer       = 64 << 10
	upstreamTimeout = 30 * time.Second
)

// astraRequest is the body of POST /v1/user_intent.
type astraRequest struct {
	Email              string            `json:"email"`
	Phone              string            `json:"phone"`
	FirstName          string            `json:"first_name"`
	LastName           string            `json:"last_name"`
	PreferredFirstName string            `json:"preferred_first_name,omitempty"`
	PreferredLastName  string            `json:"preferred_last_name,omitempty"`
	PreferredPronouns  string            `json:"preferred_pronouns,omitempty"`
	Address1           string            `json:"address1"`
	Address2           string            `json:"address2"` // always, "" for none
	City               string            `json:"city"`
	State              string            `json:"state"`
	PostalCode         string            `json:"postal_code"`
	DateOfBirth        string            `json:"date_of_birth,omitempty"`
	SSN                string            `json:"ssn,omitempty"`
	IPAddress          string            `json:"ip_address"`
	KYCType            string            `json:"kyc_type,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
}

var kycTypes = map[pb.VerificationType]string{
	pb.VerificationType_VERIFICATION_TYPE_VERIFIED:     "verified",
	pb.VerificationType_VERIFICATION_TYPE_UNVERIFIED:   "unverified",
	pb.VerificationType_VERIFICATION_TYPE_RECEIVE_ONLY: "receive-only",
}

func newAstraRequest(r *pb.CreateUserIntentRequest) *astraRequest {
	metadata := r.GetMetadata() // the message is ours alone, so the map may grow
	if len(metadata) < maxMetadataKeys {
		if metadata == nil {
			metadata = make(map[string]string, 1)
		}
		metadata[attemptIDKey] = newUUID()
	}
	return &astraRequest{
		Email:              r.GetEmail(),
		Phone:              r.GetPhone(),
		FirstName:          r.GetFirstName(),
		LastName:           r.GetLastName(),
		PreferredFirstName: r.GetPreferredFirstName(),
		PreferredLastName:  r.GetPreferredLastName(),
		PreferredPronouns:  r.GetPreferredPronouns(),
		Address1:           r.GetAddress1(),
		Address2:           r.GetAddress2(),
		City:               r.GetCity(),
		State:              r.GetState(),
		PostalCode:         r.GetPostalCode(),
		DateOfBirth:        r.GetDateOfBirth(),
		SSN:                r.GetSsnLastFour(),
		IPAddress:          r.GetIpAddress(),
		KYCType:            kycTypes[r.GetVerificationType()],
		Metadata:           metadata,
	}
}

func newUUID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[0:8], id[0:4])
	hex.Encode(text[9:13], id[4:6])
	hex.Encode(text[14:18], id[6:8])
	hex.Encode(text[19:23], id[8:10])
	hex.Encode(text[24:36], id[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

// astraAnswer is what came back: id is empty unless Astra created an intent.
type astraAnswer struct {
	httpStatus int
	retryAfter string
	requestID  string
	ID         string `json:"id"`
	Status     string `json:"status"`
}

// astraClient posts to Astra. Safe for every goroutine.
type astraClient struct {
	url       *url.URL
	header    http.Header // what each request has; its values are shared, the map is not
	transport *http.Transport
}

func newAstraClient(base, id, secret string, tlsConfig *tls.Config, connections int) (*astraClient, error) {
	u, err := url.Parse(base + "/v1/user_intent")
	if err != nil {
		return nil, err
	}
	c := &astraClient{url: u, header: http.Header{
		"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))},
		"Content-Type":  {"application/json"},
		"Accept":        {"application/json"},
		"User-Agent":    {"bench-peer-go"},
	}}
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second}
	c.transport = &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: 3 * time.Second,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		MaxConnsPerHost:     connections,
		MaxIdleConns:        connections,
		MaxIdleConnsPerHost: connections,
		IdleConnTimeout:     90 * time.Second,
	}
	return c, nil
}

func (c *astraClient) create(ctx context.Context, r *pb.CreateUserIntentRequest) (*astraAnswer, error) {
	body, err := json.Marshal(newAstraRequest(r))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	header := make(http.Header, len(c.header))
	for name, values := range c.header {
		header[name] = values
	}
	request := (&http.Request{
		Method:        http.MethodPost,
		URL:           c.url,
		Host:          c.url.Host,
		Header:        header,
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
	}).WithContext(ctx)
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer := &astraAnswer{
		httpStatus: response.StatusCode,
		retryAfter: response.Header.Get("Retry-After"),
		requestID:  response.Header.Get("Request-Id"),
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		if len(text) > maxAnswer {
			return nil, fmt.Errorf("answer is larger than %d bytes", maxAnswer)
		}
		if err := json.Unmarshal(text, answer); err != nil {
			return nil, err
		}
	}
	return answer, nil
}
