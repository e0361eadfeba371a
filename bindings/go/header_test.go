package layerline_test

import (
	"bytes"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"layerline"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestHeaderThatTravelsIsTheLibrarys(t *testing.T) {
	if !bytes.Equal([]byte(read(t, "layerline.h")), []byte(read(t, "../../include/layerline.h"))) {
		t.Error("bindings/go/layerline.h differs from include/layerline.h: run `make header`")
	}
}

// Of each struct every field, so that what a later header adds is not forgotten here.
func TestStructsHaveTheFieldsOfTheHeader(t *testing.T) {
	header := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(read(t, "layerline.h"), "")
	for name, value := range map[string]any{
		"plan":         layerline.Plan{},
		"model_info":   layerline.Info{},
		"session_info": layerline.SessionInfo{},
		"stats":        layerline.Stats{},
		"event":        layerline.Event{},
		"message":      layerline.Message{},
	} {
		body := regexp.MustCompile(`(?s)typedef struct layerline_` + name + ` \{(.*?)\}`).FindStringSubmatch(header)
		if body == nil {
			t.Fatalf("the header has no layerline_%s", name)
		}
		var wanted, found []string
		for _, field := range regexp.MustCompile(`\w+ \*?(\w+);`).FindAllStringSubmatch(body[1], -1) {
			if field[1] != "struct_size" && field[1] != "reserved" {
				wanted = append(wanted, field[1])
			}
		}
		for i, fields := 0, reflect.TypeOf(value); i < fields.NumField(); i++ {
			found = append(found, fields.Field(i).Name)
		}
		// As C names them: LayerCount is layer_count, StallTime is stall_ns.
		same := len(wanted) == len(found)
		for i := 0; same && i < len(wanted); i++ {
			c := strings.ReplaceAll(strings.TrimSuffix(wanted[i], "_ns"), "_", "")
			goes := strings.TrimSuffix(strings.ToLower(found[i]), "time")
			same = c == goes || wanted[i] == "status" && found[i] == "Err"
		}
		if !same {
			t.Errorf("layerline_%s has %v, its Go struct %v", name, wanted, found)
		}
	}
}

// Of each group of numbers every one.
func TestNumbersAreThoseOfTheHeader(t *testing.T) {
	source := ""
	for _, file := range []string{"errors.go", "options.go", "model.go", "events.go", "session.go"} {
		source += read(t, file)
	}
	numbers := regexp.MustCompile(`(?m)^#define (LAYERLINE_(?:ERROR|IO|EVENT|LAYER|LOGITS|EMBEDDINGS|TOKENIZE)_\w+) -?\d+$`).
		FindAllStringSubmatch(read(t, "layerline.h"), -1)
	if len(numbers) < 20 {
		t.Fatalf("only %d numbers found", len(numbers))
	}
	for _, number := range numbers {
		if !regexp.MustCompile(`= C\.` + number[1] + `\b`).MatchString(source) {
			t.Errorf("there is no constant for %s", number[1])
		}
	}
}

func TestVersionIsThePackages(t *testing.T) {
	version := regexp.MustCompile(`(?m)^version = "(.*)"`).FindStringSubmatch(read(t, "../../Cargo.toml"))
	if version == nil || layerline.Version() != version[1] {
		t.Errorf("the library is %q, Cargo.toml says %q", layerline.Version(), version)
	}
	if layerline.VersionNumber()/1_000_000 != 0 || layerline.VersionNumber() == 0 {
		t.Errorf("the version's number is %d", layerline.VersionNumber())
	}
	if len(strings.Split(layerline.BuildInfo(), "; ")) != 4 {
		t.Errorf("build info is %q", layerline.BuildInfo())
	}
}
