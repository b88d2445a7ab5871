// The viewer of the report: native controls outside, one Bokeh figure inside, whose models are found by their names.
"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const views = JSON.parse($("views").textContent);
  const lessMotion = matchMedia("(prefers-reduced-motion: reduce)");
  const PRESETS = [["Lung", "l", -600, 1500], ["Soft tissue", "s", 40, 400]];
  const BLINK_MS = 700;  // below three flashes a second; draws: at the reader's pace, which is below it too
  const minus = (number, digits = 0) => number.toFixed(digits).replace("-", "−");
  const state = { view: 0, mode: "divider", image: 1, first: 0, second: 1, second_is_shown: false, drawn: 0, pace: BLINK_MS, divider: 0.5, level: 0, width: 1, at: null };
  let layers = [], timer = null;

  await Bokeh.embed.embed_item(JSON.parse($("item").textContent), "plot");
  const model = (name) => Bokeh.documents[0].get_model_by_name(name);
  const plot = model("viewer"), source = model("shown"), grey = model("window"), line = model("divider");
  const Pixels = source.data.image[0].constructor;
  PRESETS.push(["Figure", "f", (grey.low + grey.high) / 2, grey.high - grey.low]);
  let pixels = null;

  // Data

  async function unpacked(layer) {
    const packed = Uint8Array.from(atob(layer.data), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const { rows, columns, repeat } = layer, high = rows * columns;
    const hu = new Int16Array(high * repeat * repeat), wide = columns * repeat;
    for (let row = 0; row < rows; row++) {
      // Bokeh's first row is the lowest one.
      const target = (rows - 1 - row) * repeat * wide;
      let value = 0;
      for (let column = 0; column < columns; column++) {
        const at = row * columns + column;
        value = ((value + (bytes[at] | (bytes[high + at] << 8))) << 16) >> 16;
        for (let n = 0; n < repeat; n++) hu[target + column * repeat + n] = value;
      }
      for (let n = 1; n < repeat; n++) hu.copyWithin(target + n * wide, target, target + wide);
    }
    return { name: layer.name, rows: rows * repeat, columns: wide, hu, draw: layer.draw, window: layer.window };
  }

  // An image with a window of its own is put into the one that is set, so that its black and white stay.
  function values(layer) {
    if (!layer.window) return layer.hu;
    const { low, high } = grey, [black, white] = layer.window;
    if (layer.low !== low || layer.high !== high) {
      const times = (high - low) / (white - black);
      Object.assign(layer, { low, high, values: layer.hu.map((hu) => Math.max(-32768, Math.min(32767, low + (hu - black) * times))) });
    }
    return layer.values;
  }
  const draws = () => layers.filter((layer) => layer.draw);

  async function showView(number) {
    const view = views[number];
    layers = await Promise.all(view.layers.map(unpacked));
    const names = layers.map((layer) => layer.name), last = names.length - 1;
    state.view = number;
    for (const key of ["image", "first", "second"]) state[key] = Math.min(state[key], last);
    fillControls(names);
    pixels = new Pixels(layers[0].hu.length, [layers[0].rows, layers[0].columns]);
    $("draws").hidden = draws().length < 2;
    if (state.mode === "draws" && draws().length < 2) setMode("divider");
    source.data = { image: [pixels], x: [0], y: [0], width: [view.width], height: [view.height] };
    $("where").textContent = `${view.title}: ${view.where}`;
    $("side-left").textContent = view.sides.slice(0, 1);
    $("side-top").textContent = view.sides.slice(1);
    whole();
    draw();
  }

  // Where one looks: the figure's ranges, in mm, always with equal scales along both axes

  const frame = () => [plot.inner_width || $("plot").clientWidth, plot.inner_height || $("plot").clientHeight];

  let isWhole = true;
  function look(x, y, perPixel, all = false) {
    const [width, height] = frame();
    if (!width || !height) return;
    isWhole = all;
    plot.x_range.setv({ start: x - width * perPixel / 2, end: x + width * perPixel / 2 });
    plot.y_range.setv({ start: y - height * perPixel / 2, end: y + height * perPixel / 2 });
    if (state.mode === "divider") draw();
  }
  function seen() {
    const { x_range: x, y_range: y } = plot;
    return [(x.start + x.end) / 2, (y.start + y.end) / 2, (x.end - x.start) / frame()[0]];
  }
  function whole() {
    const view = views[state.view], [width, height] = frame();
    look(view.width / 2, view.height / 2, Math.max(view.width / width, view.height / height), true);
  }
  function zoom(factor) { const [x, y, perPixel] = seen(); look(x, y, perPixel / factor); }
  function pan(right, up) {
    const [x, y, perPixel] = seen(), [width, height] = frame();
    look(x + right * width * perPixel, y + up * height * perPixel, perPixel);
  }
  let before = frame();
  function resized() {
    const now = frame();
    if (now[0] === before[0] && now[1] === before[1]) return;
    const { x_range: x, y_range: y } = plot;
    const perPixel = Math.max((x.end - x.start) / before[0], (y.end - y.start) / before[1]) * Math.max(before[0] / now[0], before[1] / now[1]);
    before = now;
    const { width, height } = views[state.view];
    if (isWhole && Math.max(x.start, y.start, width - x.end, height - y.end) < 1e-6) whole();
    else look((x.start + x.end) / 2, (y.start + y.end) / 2, perPixel);
  }
  plot.properties.inner_width.change.connect(resized);
  plot.properties.inner_height.change.connect(resized);
  plot.x_range.change.connect(() => { if (state.mode === "divider") draw(); });

  // What is shown

  function shownImage() {
    if (state.mode === "one") return state.image;
    if (state.mode === "draws") return layers.indexOf(draws()[state.drawn % draws().length]);
    return state.second_is_shown ? state.second : state.first;
  }

  function draw() {
    if (!pixels) return;
    const divided = state.mode === "divider";
    if (divided) {
      const { start, end } = plot.x_range, place = start + state.divider * (end - start);
      const { rows, columns } = layers[0], left = values(layers[state.first]), right = values(layers[state.second]);
      const cut = Math.min(columns, Math.max(0, Math.round(place / views[state.view].width * columns)));
      for (let at = 0; at < rows * columns; at += columns) {
        pixels.set(left.subarray(at, at + cut), at);
        pixels.set(right.subarray(at + cut, at + columns), at + cut);
      }
      line.location = place;
    } else {
      pixels.set(values(layers[shownImage()]));
    }
    line.visible = divided;
    source.change.emit();
    $("left-name").textContent = layers[divided ? state.first : shownImage()].name;
    $("right-name").textContent = divided ? layers[state.second].name : "";
    $("right-name").hidden = !divided;
    const what = divided
      ? `${layers[state.first].name} on the left, ${layers[state.second].name} on the right`
      : layers[shownImage()].name;
    $("frame").setAttribute("aria-label", `CT viewer: ${what}`);
    if (timer === null) $("said").textContent = what;
    read();
  }

  function read() {
    const view = views[state.view], at = state.at;
    const x = at ? plot.x_range.start + at[0] * (plot.x_range.end - plot.x_range.start) : -1;
    const y = at ? plot.y_range.end - at[1] * (plot.y_range.end - plot.y_range.start) : -1;
    const { rows, columns } = layers[0];
    const column = Math.floor(x / view.width * columns), row = Math.floor(y / view.height * rows);
    if (column < 0 || row < 0 || column >= columns || row >= rows) {
      $("readout").textContent = "Point at the image to read HU.";
      return;
    }
    const told = layers.map((layer) => `${layer.name} ${minus(layer.hu[row * columns + column])}`);
    $("readout").textContent = `x ${x.toFixed(1)}, y ${(view.height - y).toFixed(1)} mm. HU: ${told.join(", ")}`;
  }

  function setWindow(level, width) {
    Object.assign(state, { level, width });
    grey.setv({ low: level - width / 2, high: level + width / 2 });
    $("level").value = level;
    $("width").value = width;
    $("level-shown").textContent = `${minus(level)} HU`;
    $("width-shown").textContent = `${minus(width)} HU`;
    $("low").textContent = minus(grey.low);
    $("high").textContent = `${minus(grey.high)} HU`;
    for (const button of $("presets").children) {
      const [, , l, w] = PRESETS[button.dataset.preset];
      button.setAttribute("aria-pressed", l === level && w === width);
    }
    if (layers.some((layer) => layer.window)) draw();
  }

  function stopBlinking() {
    clearInterval(timer);
    timer = null;
    $("blink").setAttribute("aria-pressed", "false");
    $("blink").textContent = lessMotion.matches ? "Change the image" : state.mode === "draws" ? "Start flickering" : "Start blinking";
  }
  function swap() {
    if (state.mode === "draws") state.drawn += 1; else state.second_is_shown = !state.second_is_shown;
    draw();
  }
  function blink() {
    if (lessMotion.matches) { swap(); return; }
    if (timer !== null) { stopBlinking(); draw(); return; }
    timer = setInterval(swap, state.mode === "draws" ? state.pace : BLINK_MS);
    $("blink").setAttribute("aria-pressed", "true");
    $("blink").textContent = state.mode === "draws" ? "Stop flickering" : "Stop blinking";
    swap();
  }

  function setMode(mode) {
    state.mode = mode;
    stopBlinking();
    state.second_is_shown = false;
    document.querySelector(`[name=mode][value=${mode}]`).checked = true;
    $("one").hidden = mode !== "one";
    const two = mode === "divider" || mode === "blink", moves = mode === "blink" || mode === "draws";
    $("pair").hidden = mode === "one";
    for (const label of document.querySelectorAll("#pair label.line")) label.hidden = !two;
    $("blink").hidden = !moves;
    $("still").hidden = !moves || !lessMotion.matches;
    $("paces").hidden = mode !== "draws" || lessMotion.matches;
    $("divider").hidden = mode !== "divider";
    $("first-name").textContent = mode === "blink" ? "First" : "Left";
    $("second-name").textContent = mode === "blink" ? "Second" : "Right";
    draw();
  }
  function setImage(number) {
    if (number >= layers.length) return;
    state.image = number;
    $("images").querySelectorAll("input")[number].checked = true;
    setMode("one");
  }
  function setDivider(share) {
    state.divider = Math.min(1, Math.max(0, share));
    $("divider").value = Math.round(1000 * state.divider);
    draw();
  }

  // Controls

  function fillControls(names) {
    $("images").replaceChildren(...names.map((name, number) => {
      const label = document.createElement("label"), input = document.createElement("input");
      Object.assign(input, { type: "radio", name: "image", value: number, checked: number === state.image });
      label.append(input, ` ${number + 1} ${name}`);
      return label;
    }));
    for (const [id, chosen] of [["first", state.first], ["second", state.second]]) {
      $(id).replaceChildren(...names.map((name, number) => new Option(name, number, false, number === chosen)));
    }
  }
  PRESETS.forEach(([name], number) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: name });
    button.dataset.preset = number;
    button.addEventListener("click", () => setWindow(...PRESETS[number].slice(2)));
    $("presets").append(button);
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("images").addEventListener("change", (event) => setImage(Number(event.target.value)));
  document.querySelectorAll("[name=mode]").forEach((radio) => radio.addEventListener("change", () => setMode(radio.value)));
  for (const id of ["first", "second"]) $(id).addEventListener("change", () => { state[id] = Number($(id).value); draw(); });
  for (const id of ["level", "width"]) {
    $(id).addEventListener("input", () => setWindow(Number($("level").value), Number($("width").value)));
  }
  $("divider").addEventListener("input", () => setDivider($("divider").value / 1000));
  $("blink").addEventListener("click", blink);
  $("pace").addEventListener("input", () => {
    state.pace = Number($("pace").value);
    $("pace-shown").textContent = `${(state.pace / 1000).toFixed(1)} s`;
    if (timer !== null) { clearInterval(timer); timer = setInterval(swap, state.pace); }
  });
  $("in").addEventListener("click", () => zoom(1.5));
  $("out").addEventListener("click", () => zoom(1 / 1.5));
  $("whole").addEventListener("click", whole);
  lessMotion.addEventListener("change", () => setMode(state.mode));
  function showModels(name) {
    document.querySelectorAll(".beside [data-training-set]").forEach((table) => { table.hidden = table.dataset.trainingSet !== name; });
  }
  if ($("training-set")) $("training-set").addEventListener("change", () => showModels($("training-set").value));
  if ($("view")) $("view").addEventListener("change", async () => {
    await showView(Number($("view").value));
    const select = $("training-set"), name = views[state.view].trainingSet;
    if (select && [...select.options].some((option) => option.value === name)) { select.value = name; showModels(name); }
  });
  for (const kind of ["pointermove", "pointerdown"]) $("frame").addEventListener(kind, (event) => {
    const box = $("plot").getBoundingClientRect();
    state.at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    read();
  });

  // Keys

  const ARROWS = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
  $("frame").addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const [right, up] = ARROWS[event.key];
    if (state.mode === "divider" && right && !event.shiftKey) setDivider(state.divider + right / 5); else pan(right, up);
  });
  const KEYS = {
    d: () => setMode("divider"),
    b: () => { if (state.mode !== "blink") setMode("blink"); blink(); },
    n: () => { if (draws().length > 1) { if (state.mode !== "draws") setMode("draws"); stopBlinking(); swap(); } },
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: whole,
  };
  for (const [, key, level, width] of PRESETS) KEYS[key] = () => setWindow(level, width);
  document.addEventListener("keydown", (event) => {
    const on = event.target;
    if (!$("keys").checked || event.ctrlKey || event.altKey || event.metaKey || on.matches("select, textarea, [contenteditable]")) return;
    if (on !== document.body && !on.closest("#comparison")) return;
    const act = KEYS[event.key] ?? (/^[1-9]$/.test(event.key) ? () => setImage(Number(event.key) - 1) : null);
    if (act) { event.preventDefault(); act(); }
  });

  setWindow(...PRESETS[0].slice(2));
  await showView(0);
  setMode(state.mode);
  $("controls").hidden = false;
  $("cannot").hidden = true;
  document.documentElement.dataset.ready = "";
})();
