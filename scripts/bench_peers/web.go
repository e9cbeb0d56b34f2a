package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
)

// connection returns a client that keeps one connection.
func connection() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, DisableCompression: true}}
}

func post(ctx context.Context, client *http.Client, url string, headers map[string]string, body []byte) ([]byte, error) {
	return ask(ctx, client, http.MethodPost, url, headers, bytes.NewReader(body))
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	return ask(ctx, client, http.MethodGet, url, nil, http.NoBody)
}

func ask(ctx context.Context, client *http.Client, method, url string, headers map[string]string, body io.Reader) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s: %.300s", url, answer.Status, text)
	}
	return text, err
}
