// The page: a bundle is chosen or dropped, verified while a bar moves, and told of.
(() => {
  const PAGE_ENTRIES = 20;
  const PREVIEW_BYTES = 160;
  const TICK_MILLISECONDS = 100;
  const [choose, drop, file, trust] = ["choose", "drop", "file", "trust"].map((id) => document.getElementById(id));
  const [working, state, bar, result] = ["working", "state", "progress", "result"].map((id) => document.getElementById(id));
  let turn = 0;

  function element(name, members, ...children) {
    const made = Object.assign(document.createElement(name), members);
    made.append(...children);
    return made;
  }

  function shown(name, text, members = {}) {
    return element(name, { textContent: visibleText(text), ...members });
  }

  async function readTrust() {
    const text = trust.value.trim();
    if (text === "") return null;
    if (/^\S+$/.test(text)) {
      const key = await parseVerifier(text);
      return { logs: [{ key, url: "" }], witnesses: [], groups: [], quorum: null };
    }
    return parsePolicy(encodeText(`${text}\n`));
  }

  // Waits for the page to be drawn, but not more often than somebody sees.
  function ticker(mine) {
    let last = -TICK_MILLISECONDS;
    return async (part) => {
      if (performance.now() - last < TICK_MILLISECONDS) return;
      bar.value = part;
      state.textContent = `Verifying: ${Math.floor(100 * part)} %`;
      await new Promise((resolve) => setTimeout(resolve));
      last = performance.now();
      if (mine !== turn) throw new MalformedError("another bundle was chosen meanwhile");
    };
  }

  async function verifyFile(chosen) {
    const mine = ++turn;
    result.replaceChildren();
    working.hidden = false;
    bar.value = 0;
    state.textContent = "Reading";
    try {
      if (chosen.size > MAX_BUNDLE_BYTES) throw new MalformedError(`a bundle has at most ${MAX_BUNDLE_BYTES} bytes`);
      const pinned = await atPlaceLater("the log’s key, or the trust policy, given above", readTrust);
      const raw = new Uint8Array(await chosen.arrayBuffer());
      const began = performance.now();
      const bundle = await verifyBundle(raw, pinned, ticker(mine));
      result.dataset.milliseconds = String(performance.now() - began);
      if (mine === turn) tellReport(bundle, chosen);
    } catch (error) {
      if (mine === turn) tellRefusal(error, chosen);
    } finally {
      if (mine === turn) working.hidden = true;
    }
    result.focus();
  }

  function verdict(kind, title, ...lines) {
    return element("div", { className: `verdict ${kind}` }, element("strong", { textContent: title }), ...lines);
  }

  function tellRefusal(error, chosen) {
    const known = error instanceof MalformedError || error instanceof RefusedError;
    const why = known ? error.message : `this page failed, which says nothing of the bundle: ${error.message}`;
    result.append(
      verdict(
        "bad",
        known ? "Refused" : "Not verified",
        shown("p", chosen.name),
        element("p", {}, "Where: ", shown("span", error.place ?? "the file", { className: "mono" })),
        element("p", {}, "Why: ", shown("span", why)),
      ),
    );
  }

  function tellReport(bundle, chosen) {
    const { facts, checks, notes } = reportOf(bundle, CLAUSES);
    const pinned = bundle.parts[0].isOwn;
    const title = pinned ? "Everything holds" : "Everything fits together; whose it is, is open";
    const say = pinned
      ? "It is verified by the key, or the trust policy, that you have given."
      : "No key was given. Compare the key of the log below with the one that you have from elsewhere, or put that in above and choose the bundle again.";
    const mono = new Set(["Segment", "Key of the log", "Head"]);
    const print = element("button", { type: "button", textContent: "Print the report", onclick: () => window.print() });
    result.append(
      verdict(pinned ? "good" : "warn", title, shown("p", chosen.name), element("p", { textContent: say })),
      element("h2", { textContent: "What was exported" }),
      element(
        "dl",
        {},
        ...facts.flatMap(([label, value]) => [
          element("dt", { textContent: label }),
          shown("dd", value, mono.has(label) ? { className: "mono" } : {}),
        ]),
      ),
      element("h2", { textContent: "What was checked, and the clauses that it speaks to" }),
      element("ul", { className: "checks" }, ...checks.map(checkItem)),
      element("h2", { textContent: "What nothing here proves" }),
      element("ul", { className: "notes" }, ...notes.map((note) => element("li", { textContent: note }))),
      element("p", { className: "bar" }, print),
      eventList(bundle),
    );
  }

  function checkItem({ title, detail, clauses }) {
    return element(
      "li",
      {},
      element("span", { className: "tick", textContent: "✓", title: "holds" }),
      element("span", {}, element("b", { textContent: title }), shown("span", detail, { className: "detail" })),
      element("span", { className: "clauses" }, ...clauses.map((clause) => element("span", { textContent: clause }))),
    );
  }

  // The events as they were verified, a page at a time.
  function eventList({ parts: [part], contents }) {
    const [heading, list] = [element("h2", { textContent: "Events" }), element("div")];
    const where = element("span", { role: "status" });
    const [before, after] = ["Earlier", "Later"].map((textContent) => element("button", { type: "button", textContent }));
    let first = 0;
    const show = (next) => {
      first = next;
      const end = Math.min(first + PAGE_ENTRIES, part.indexes.length);
      where.textContent = `${first + 1} to ${end} of ${part.indexes.length}`;
      before.disabled = first === 0;
      after.disabled = end === part.indexes.length;
      list.replaceChildren(...Array.from({ length: end - first }, (_, place) => eventItem(part, contents, first + place)));
    };
    before.onclick = () => show(first - PAGE_ENTRIES);
    after.onclick = () => show(first + PAGE_ENTRIES);
    show(0);
    return element("section", { id: "events" }, heading, element("div", { className: "bar" }, before, where, after), list);
  }

  function eventItem(part, contents, number) {
    const line = (file) => lineOf(contents.get(`segment/${file}`), number);
    const entry = parseEntry(line("entries.ndjson"));
    const told = `${timeText(entry.time)} by ${entry.writer}`;
    const start = new TextDecoder().decode(line("events.ndjson").subarray(0, PREVIEW_BYTES));
    const preview = shown("code", start, { className: "preview" });
    const summary = element("summary", {}, `${part.indexes[number]} `, shown("span", told), preview);
    const item = element("details", {}, summary);
    item.ontoggle = () => {
      if (item.childElementCount === 1) {
        item.append(element("pre", { textContent: visibleText(readable(line("events.ndjson")), "\n") }));
      }
    };
    return item;
  }

  // Of what is no JSON, although its log says so, no character may be left out.
  function readable(raw) {
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(raw);
    try {
      JSON.parse(text);
    } catch {
      return text;
    }
    return jsonLines(text);
  }

  file.onchange = () => {
    if (file.files.length > 0) verifyFile(file.files[0]);
    // So that the same file can be chosen again, with another key.
    file.value = "";
  };
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    choose.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length > 0) verifyFile(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => event.preventDefault());
})();
