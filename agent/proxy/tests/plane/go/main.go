// HTTP/2 as Go speaks it: `serve` answers each request with its body and a trailer, and prints its
// address first; `call ADDRESS COUNT` asks as often on one connection, with bodies of many sizes.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func protocols() *http.Protocols {
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	return &only
}

func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Length")
		w.Header().Set("X-Protocol", r.Proto)
		if r.URL.Path == "/early" {
			w.WriteHeader(http.StatusTeapot)
			return // nobody reads the body
		}
		length, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Length", strconv.FormatInt(length, 10))
	}
	server := &http.Server{Handler: http.HandlerFunc(answer), Protocols: protocols()}
	return server.Serve(listener)
}

func ask(client *http.Client, base string, number int) error {
	body := bytes.Repeat([]byte{byte(number)}, number*number*37%300_000)
	request, err := http.NewRequest("POST", base+"/echo", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("X-Number", strconv.Itoa(number))
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	back, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if !bytes.Equal(body, back) || answer.Trailer.Get("X-Length") != strconv.Itoa(len(body)) {
		return fmt.Errorf("%d bytes came back as %d, trailers %v", len(body), len(back), answer.Trailer)
	}
	return nil
}

func early(client *http.Client, base string) error {
	endless := io.MultiReader(strings.NewReader("x"), neverEnding{})
	answer, err := client.Post(base+"/early", "text/plain", io.LimitReader(endless, 8<<20))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusTeapot {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return nil
}

type neverEnding struct{}

func (neverEnding) Read(into []byte) (int, error) { return len(into), nil }

func call(address string, count int) error {
	client := &http.Client{Transport: &http.Transport{Protocols: protocols()}, Timeout: 60 * time.Second}
	base := "http://" + address
	var all sync.WaitGroup
	failed := make(chan error, count)
	for number := range count {
		all.Go(func() {
			if err := ask(client, base, number); err != nil {
				failed <- fmt.Errorf("request %d: %w", number, err)
			}
		})
	}
	all.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	return early(client, base)
}

func main() {
	var err error
	if os.Args[1] == "serve" {
		err = serve()
	} else {
		count, _ := strconv.Atoi(os.Args[3])
		err = call(os.Args[2], count)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
