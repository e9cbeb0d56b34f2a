// The audit devices of Vault: its socket device itself, and what the HTTP device of OpenBao does.
//
//	vault socket tcp|unix ADDRESS FIRST COUNT BYTES
//	vault http URL FIRST COUNT BYTES
//
// Audits the requests FIRST to FIRST+COUNT, of a client that has a policy with a name of so many bytes, and prints for each whether Vault would have gone on with it.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/audit/socket"
	"github.com/hashicorp/vault/helper/namespace"
	"github.com/hashicorp/vault/helper/salt"
	"github.com/hashicorp/vault/logical"
)

func main() {
	arguments := os.Args[2:]
	var device audit.Backend
	if os.Args[1] == "socket" {
		device = socketDevice(arguments[0], arguments[1])
		arguments = arguments[2:]
	} else {
		device = newHTTPDevice(arguments[0])
		arguments = arguments[1:]
	}
	first, count, policy := number(arguments[0]), number(arguments[1]), strings.Repeat("p", number(arguments[2]))
	for id := first; id < first+count; id++ {
		if err := auditBoth(device, id, policy); err != nil {
			fmt.Printf("%d refused: %q\n", id, err)
		} else {
			fmt.Printf("%d audited\n", id)
		}
	}
}

// auditBoth audits a request and its response as Vault does: without the first, there is no second.
func auditBoth(device audit.Backend, id int, policy string) error {
	input := &audit.LogInput{
		Auth: &logical.Auth{DisplayName: "token-till", ClientToken: "s.secret", Policies: []string{policy}},
		Request: &logical.Request{
			ID:         fmt.Sprintf("id-%d", id),
			Operation:  logical.UpdateOperation,
			Path:       "transit/sign/till",
			Data:       map[string]interface{}{"input": "c2VjcmV0"},
			Connection: &logical.Connection{RemoteAddr: "192.0.2.7"},
		},
	}
	ctx := namespace.RootContext(context.Background())
	if err := device.LogRequest(ctx, input); err != nil {
		return err
	}
	if id%10 == 9 {
		input.OuterErr = errors.New("permission denied")
	}
	input.Response = &logical.Response{Data: map[string]interface{}{"signature": "vault:v1:secret"}}
	return device.LogResponse(ctx, input)
}

func config(options map[string]string) *audit.BackendConfig {
	return &audit.BackendConfig{SaltView: &logical.InmemStorage{}, SaltConfig: &salt.Config{}, Config: options}
}

func socketDevice(kind, address string) audit.Backend {
	options := map[string]string{"socket_type": kind, "address": address, "write_timeout": "50ms"}
	device, err := socket.Factory(context.Background(), config(options))
	check(err)
	return device
}

// httpDevice sends as builtin/audit/http/backend.go of OpenBao 2.5: a POST of the line with the configured headers, and
// no other, not even a Content-Type; once; and any answer but success fails the request. OpenBao itself is not at hand:
// the Go module proxy does not have it.
type httpDevice struct {
	audit.Backend
	formatter audit.AuditFormatter
	url       string
	headers   http.Header
}

func newHTTPDevice(url string) audit.Backend {
	view := &logical.InmemStorage{}
	formatter := &audit.JSONFormatWriter{SaltFunc: func(ctx context.Context) (*salt.Salt, error) {
		return salt.NewSalt(ctx, view, &salt.Config{})
	}}
	headers := http.Header{"Authorization": {"Bearer " + os.Getenv("TLOG_TOKEN")}}
	return &httpDevice{nil, audit.AuditFormatter{AuditFormatWriter: formatter}, url, headers}
}

func (device *httpDevice) LogRequest(ctx context.Context, input *audit.LogInput) error {
	var line bytes.Buffer
	check(device.formatter.FormatRequest(ctx, &line, audit.FormatterConfig{HMACAccessor: true}, input))
	return device.log(ctx, line.Bytes())
}

func (device *httpDevice) LogResponse(ctx context.Context, input *audit.LogInput) error {
	var line bytes.Buffer
	check(device.formatter.FormatResponse(ctx, &line, audit.FormatterConfig{HMACAccessor: true}, input))
	return device.log(ctx, line.Bytes())
}

func (device *httpDevice) log(ctx context.Context, line []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, device.url, bytes.NewReader(line))
	check(err)
	request.Header = device.headers.Clone()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode >= 300 {
		return fmt.Errorf("status code not 2xx: %v", response.StatusCode)
	}
	return nil
}

func number(text string) int {
	found, err := strconv.Atoi(text)
	check(err)
	return found
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
