"use strict";
const run = JSON.parse(document.getElementById("data").textContent);
const {facts, picture, tokens, tower, merge, decoder} = run;
const $ = id => document.getElementById(id);

/* --------------------------------------------------------------------------- small tools */

// An array as explain.py packs it; at(i, j) is what stands under its first indices.
function unpack({type, shape, data}) {
  const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
  const values = type === "uint16" ? new Uint16Array(bytes.buffer) : bytes;
  const at = (...index) => {
    let start = 0, size = values.length;
    index.forEach((i, dimension) => { size /= shape[dimension]; start += i * size; });
    return values.subarray(start, start + size);
  };
  return {values, shape, at};
}
const share = value => value / 65535;

// All text from outside goes through here, as text nodes and attributes: it is never read as HTML.
function make(tag, properties = {}, ...children) {
  const svg = ["svg", "rect", "circle", "line", "text"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.setAttribute("class", value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name in element && !svg) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
const fill = (element, ...children) => element.replaceChildren(...children);
const visible = text => text.replace(/\n/g, "↵").replace(/ /g, "␣");
const percent = x => x > 0 && x < .0005 ? "< 0.1 %" : (100 * x).toFixed(x < .0995 ? 1 : 0) + " %";
const shapeOf = shape => shape ? "[" + shape.join(", ") + "]" : "–";
const grouped = n => n.toLocaleString("en-US");
const bytes = n => n < 1e3 ? n + " B" : n < 1e6 ? (n / 1e3).toFixed(1) + " kB" : n < 1e9 ? (n / 1e6).toFixed(1) + " MB"
  : (n / 1e9).toFixed(2) + " GB";
const milliseconds = s => s === null ? "–" : (1e3 * s).toFixed(s < .01 ? 2 : s < .1 ? 1 : 0) + " ms";
const clock = s => s < 1 ? (1e3 * s).toFixed(0) + " ms" : s.toFixed(1) + " s";
const mean = values => values.reduce((sum, x) => sum + x, 0) / values.length;

// A group of buttons of which one is chosen: one stop of the Tab key, and arrow keys inside.
// places: row and column of each button; where none stands, the arrow goes on to the next.
const ARROWS = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
function choice(buttons, places, choose) {
  const at = (row, column) => places.findIndex(([r, c]) => r === row && c === column);
  const target = (i, key) => {
    if (key === "Home") return 0;
    if (key === "End") return buttons.length - 1;
    const [down, right] = ARROWS[key], [row, column] = places[i];
    let to = -1;
    for (let step = 1; step <= buttons.length && to < 0; step++) to = at(row + step * down, column + step * right);
    return to;
  };
  buttons.forEach((button, i) => {
    button.type = "button";
    button.addEventListener("click", () => choose(i));
    button.addEventListener("keydown", event => {
      if (!(event.key in ARROWS) && event.key !== "Home" && event.key !== "End") return;
      event.preventDefault();
      const to = target(i, event.key);
      if (to < 0) return;
      choose(to);
      buttons[to].focus();
    });
  });
  return chosen => buttons.forEach((button, i) => {
    button.tabIndex = i === chosen ? 0 : -1;
    button.setAttribute("aria-pressed", i === chosen);
  });
}

/* ------------------------------------------------------------------------------ heat maps */

// Where nothing is attended to the picture is dark and gray; the more attention, the more it has its own light.
const DARK = [17, 20, 38], WARM = "rgba(255, 176, 40, .26)";
const light = part => Math.sqrt(part);
let lit, dim;  // the picture, and the picture without light

function makeDim() {
  const size = picture.size, canvas = make("canvas", {width: size, height: size}), context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    const [r, g, b] = pixels.values.subarray(3 * i, 3 * i + 3), gray = .3 * r + .59 * g + .11 * b;
    image.data.set([...DARK.map(dark => dark + .15 * gray), 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
function layerOfLight(weights, most, side) {
  const n = picture.cells, small = make("canvas", {width: n, height: n}), large = make("canvas", {width: side, height: side});
  const context = small.getContext("2d"), image = context.createImageData(n, n), over = large.getContext("2d");
  weights.forEach((weight, i) => { image.data[4 * i + 3] = 255 * light(weight / most); });
  context.putImageData(image, 0, 0);
  over.imageSmoothingEnabled = false;
  over.drawImage(small, 0, 0, side, side);
  over.imageSmoothingEnabled = true;
  over.globalCompositeOperation = "source-in";
  over.drawImage(lit, 0, 0, side, side);
  over.globalCompositeOperation = "source-atop";
  over.fillStyle = WARM;
  over.fillRect(0, 0, side, side);
  return large;
}
function heat(canvas, weights, box) {
  const side = canvas.width, context = canvas.getContext("2d"), most = Math.max(...weights, 1e-9);
  context.drawImage(dim, 0, 0, side, side);
  context.drawImage(layerOfLight(weights, most, side), 0, 0);
  if (box) {
    const [y1, x1, y2, x2] = box.map(edge => edge * side);
    for (const [width, color] of [[side / 60 + 2, "#0008"], [side / 120 + 1, "#fff"]]) {
      context.lineWidth = width;
      context.strokeStyle = color;
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
  }
  canvas.dataset.sum = share(weights.reduce((sum, weight) => sum + weight, 0));
  return share(most);
}
function drawLegends() {
  for (const canvas of document.querySelectorAll(".legend canvas")) {
    const context = canvas.getContext("2d");
    for (let x = 0; x < canvas.width; x++) {
      const part = light(x / canvas.width);
      context.fillStyle = `rgb(${DARK.map((dark, i) => (dark + 25) * (1 - part) + [250, 226, 178][i] * part)})`;
      context.fillRect(x, 0, 1, canvas.height);
    }
  }
}
function patchButtons(count, label, choose) {
  const buttons = Array.from({length: count * count}, (_, i) =>
    make("button", {ariaLabel: `${label}, row ${Math.floor(i / count)}, column ${i % count}`}));
  const holder = make("div", {class: "patches", role: "group", ariaLabel: "Patches; move with the arrow keys",
    style: {"grid-template": `repeat(${count}, 1fr) / repeat(${count}, 1fr)`}}, ...buttons);
  const places = buttons.map((_, i) => [Math.floor(i / count), i % count]);
  return {holder, select: choice(buttons, places, choose)};
}
// Small maps in rows (layers) and columns (the mean and the heads).
function miniMaps(holder, layers, heads, has, choose) {
  const buttons = [], at = [];
  holder.style.gridTemplateColumns = `max-content repeat(${heads + 1}, max-content)`;
  fill(holder, make("span"), make("span", {class: "head"}, "mean"),
    ...Array.from({length: heads}, (_, i) => make("span", {class: "head"}, `head ${i}`)));
  for (let layer = 0; layer < layers; layer++) {
    holder.append(make("span", {class: "side"}, `layer ${layer}`));
    for (let head = -1; head < heads; head++) {
      if (!has(layer, head)) { holder.append(make("span")); continue; }
      const button = make("button", {ariaLabel: `layer ${layer}, ${headName(head)}`},
        make("canvas", {width: 96, height: 96}), make("span", {class: "ratio"}));
      buttons.push(button);
      at.push([layer, head]);
      holder.append(button);
    }
  }
  return {buttons, at, select: choice(buttons, at, i => choose(...at[i]))};
}
const headName = head => head < 0 ? "mean over the heads" : `head ${head}`;
function headOptions(select, heads, chosen) {
  for (let head = -1; head < heads; head++) select.append(new Option(headName(head), head, false, head === chosen));
}

/* ------------------------------------------------------------------- pictures with boxes */

const COLORS = ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#f032e6"];
const labels = [...new Set(run.boxes.map(box => box.label))];
const colorOf = label => COLORS[labels.indexOf(label) % COLORS.length];
const words = run.boxes.map(({label, box}) => `${label} at ${box.map(Math.round).join(", ")}`).join("; ");

function withBoxes(holder) {
  const {width, height} = picture, unit = Math.max(width, height) / 100;
  const svg = make("svg", {viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"});
  for (const {label, box: [x1, y1, x2, y2]} of run.boxes) {
    const size = 5 * unit, wide = label.length * size * .56 + 2 * unit, top = Math.max(0, y1 - size * 1.4);
    const left = Math.max(0, Math.min(x1, width - wide));
    svg.append(
      make("rect", {x: x1, y: y1, width: x2 - x1, height: y2 - y1, fill: "none", stroke: "#fff", "stroke-width": 1.6 * unit}),
      make("rect", {x: x1, y: y1, width: x2 - x1, height: y2 - y1, fill: "none", stroke: colorOf(label), "stroke-width": unit}));
    if (!label) continue;
    const text = make("text", {x: left + unit, y: top + size, fill: "#fff", "font-size": size, "font-weight": 600}, label);
    text.style.fontFamily = "var(--sans)";
    svg.append(make("rect", {x: left, y: top, width: wide, height: size * 1.4, rx: unit, fill: colorOf(label)}), text);
  }
  fill(holder, make("img", {src: picture.given, alt: `${facts.image}${words ? ", with boxes: " + words : ""}`}), svg);
}

/* ------------------------------------------------------------------------ the top, part 1 */

function drawTop() {
  withBoxes($("hero"));
  $("prompt").textContent = facts.prompt || "(no prompt)";
  $("said").textContent = facts.answer || "(no answer)";
  $("facts").textContent = `${facts.model} · ${grouped(facts.parameters)} parameters in ${facts.dtype} · ` +
    `${facts.image} · ${clock(facts.seconds)}`;
  const whole = {input: [1, 3, picture.size, picture.size]};
  const stops = [["Picture", shapeOf(whole.input)], ["Tokens", `${tokens.numImage} + ${tokens.list.length}`],
    ["Tower", shapeOf(merge.shapes.tower)], ["Merge", shapeOf(merge.shapes.merged)],
    ["Decoder", `${decoder.next.length} tokens`], ["Answer", labels.length ? run.boxes.length + (run.boxes.length > 1 ? " boxes" : " box") : "text"], ["Code", run.modules.length + " modules"]];
  fill($("path"), ...stops.map(([name, detail], i) =>
    make("li", {}, make("a", {href: `#part${i + 1}`}, `${i + 1}. ${name}`, make("small", {}, detail)))));
}

const pixels = unpack(picture.pixels);
const CHANNELS = ["red", "green", "blue"];
// −1 is blue, 0 is white, 1 is red.
function colorOfNumber(x) {
  const [r, g, b] = x < 0 ? [56, 106, 190] : [196, 62, 48];
  return [r, g, b].map(c => Math.round(255 + (c - 255) * Math.min(1, Math.abs(x))));
}
const numberAt = (x, y, channel) => pixels.values[(y * picture.size + x) * 3 + channel] / 127.5 - 1;

function channelPicture(channel) {
  const size = picture.size, canvas = make("canvas", {width: size, height: size, role: "img",
    ariaLabel: `The ${CHANNELS[channel]} numbers of the picture: −1 is blue, 0 white, 1 red`});
  const context = canvas.getContext("2d"), image = context.createImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    const color = colorOfNumber(pixels.values[3 * i + channel] / 127.5 - 1);
    image.data.set([...color, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
function drawStages() {
  const stage = (element, caption) => make("figure", {}, element, make("figcaption", {}, caption));
  fill($("stages"),
    stage(make("img", {class: "smooth", src: picture.given, alt: `The picture as given, ${facts.image}`}),
      `As given: ${picture.width} × ${picture.height}`),
    stage(make("img", {src: picture.resized, alt: "The picture, resized to a square"}), `Resized: ${picture.size} × ${picture.size}`),
    ...[0, 1, 2].map(c => stage(channelPicture(c), `${CHANNELS[c]}: −1 (blue) to 1 (red)`)));
}
function drawNumbers() {
  const P = picture.patch, row = Math.floor(state.patch / picture.grid), column = state.patch % picture.grid;
  const rows = [];
  for (let y = 0; y < P; y++) {
    const cells = [];
    for (let x = 0; x < P; x++) {
      const value = numberAt(column * P + x, row * P + y, state.channel), [r, g, b] = colorOfNumber(value);
      const dark = .3 * r + .59 * g + .11 * b < 140;
      cells.push(make("td", {style: {background: `rgb(${r},${g},${b})`, color: dark ? "#fff" : "#222"}},
        value.toFixed(2).replace("-", "−")));
    }
    rows.push(make("tr", {}, ...cells));
  }
  fill($("numbers"), make("tbody", {}, ...rows));
  fill($("patchWords"), `Patch ${state.patch}: row ${row}, column ${column}. It is ${P} × ${P} × 3 = ${grouped(P * P * 3)} numbers, ` +
    `which become ${grouped(merge.shapes.tower[2])}.`);
}

/* --------------------------------------------------------------------------------- part 2 */

const tokenChip = (token, tag = "span", detail = null) => make(tag, {class: `token ${token.kind || "answer"}`, title: token.text},
  token.label || visible(token.text), ...(detail === null ? [] : [make("small", {}, detail)]));

function drawTokens() {
  const image = {text: "<image>", label: `<image> × ${tokens.numImage}`, kind: "image"};
  fill($("tokens"), ...[[image, tokens.imageId], ...tokens.list.map(token => [token, token.id])].map(
    ([token, id]) => make("li", {style: {"max-width": "100%"}}, tokenChip(token, "span", String(id)))));

  // Nothing reads the last token, so it looks at nothing.
  const all = [image, ...tokens.list];
  const columns = all.map((token, i) => make("th", {scope: "col", class: token.kind}, make("div", {}, token.label || visible(token.text))));
  const rows = all.map((token, i) => make("tr", {}, make("th", {scope: "row", class: token.kind}, token.label || visible(token.text)),
    ...all.map((other, j) => {
      const yes = tokens.mask[i][j] === "1";
      return make("td", {class: `${j ? "" : "wide "}${yes ? "yes " : ""}${other.kind}`, title:
        `${visible(token.text)} ${yes ? "sees" : "does not see"} ${visible(other.text)}`},
        make("span", {class: "skip"}, yes ? "yes" : "no"));
    })));
  fill($("mask"), make("thead", {}, make("tr", {}, make("td", {style: {background: "none"}}), ...columns)), make("tbody", {}, ...rows));
  $("maskWords").textContent = `Colored: may be looked at. The ${tokens.numImage} image tokens see and are seen alike, so they share one ` +
    "row and one column.";
  const total = tokens.numImage + tokens.list.length, canvas = $("wholeMask"), context = canvas.getContext("2d");
  const edge = i => Math.round((i ? tokens.numImage + i - 1 : 0) / total * canvas.width);
  const style = getComputedStyle($("mask")), color = kind => getComputedStyle($("mask").querySelector(`th.${kind}`)).color;
  context.fillStyle = style.getPropertyValue("--well");
  context.fillRect(0, 0, canvas.width, canvas.height);
  all.forEach((_, i) => all.forEach((other, j) => {
    if (tokens.mask[i][j] !== "1") return;
    context.fillStyle = color(other.kind);
    context.fillRect(edge(j), edge(i), edge(j + 1) - edge(j), edge(i + 1) - edge(i));
  }));
  canvas.setAttribute("aria-label", `The mask with a row and a column for each of ${total} tokens`);
  $("wholeWords").textContent = `The whole mask, ${total} × ${total}: most of what the model reads is picture.`;
}

/* --------------------------------------------------------------------------------- part 3 */

const means = unpack(tower.means), byHead = unpack(tower.byHead);
const hasHead = (layer, head) => head < 0 || tower.headLayers.includes(layer);
const cellOf = patch => {
  const block = picture.grid / picture.cells, row = Math.floor(patch / picture.grid), column = patch % picture.grid;
  return Math.floor(row / block) * picture.cells + Math.floor(column / block);
};
const towerWeights = (layer, head, cell) => head < 0 ? means.at(layer, cell)
  : byHead.at(tower.headLayers.indexOf(layer), head, cell);

let cutter, looker, towerMinis, minis, answers;

function drawTower() {
  const {towerLayer: layer, towerHead: head} = state, cell = cellOf(state.patch);
  const most = heat($("looker").querySelector("canvas"), towerWeights(layer, head, cell));
  looker.select(cell);
  $("towerLayer").value = layer;
  $("towerLayerIs").textContent = `${layer} (0 to ${tower.layers - 1})`;
  $("towerHead").value = head;
  $("towerMost").textContent = percent(most);
  for (const option of $("towerHead").options) option.disabled = !hasHead(layer, Number(option.value));
  $("towerWords").textContent = `${picture.cells === picture.grid ? "Patch" : "Block"} in row ` +
    `${Math.floor(cell / picture.cells)}, column ${cell % picture.cells}, layer ${layer}, ${headName(head)}: of all ` +
    `${picture.cells ** 2} it pays most attention to the one in row ${peak(layer, head, cell)}, ${percent(most)}. Spread evenly it would be ` +
    `${percent(1 / picture.cells ** 2)} each.`;
  towerMinis.buttons.forEach((button, i) =>
    heat(button.firstChild, towerWeights(...towerMinis.at[i], cell)));
  towerMinis.select(towerMinis.at.findIndex(([l, h]) => l === layer && h === head));
}
function peak(layer, head, cell) {
  const weights = towerWeights(layer, head, cell), where = weights.indexOf(Math.max(...weights));
  return `${Math.floor(where / picture.cells)}, column ${where % picture.cells}`;
}
function chooseTower(layer, head) {
  state.towerLayer = layer;
  state.towerHead = hasHead(layer, head) ? head : -1;
  drawTower();
}
function choosePatch(patch) {
  state.patch = patch;
  cutter.select(patch);
  drawNumbers();
  drawTower();
}
function drawFeatures() {
  const titles = name => name === "embeddings" ? "embeddings" : name === "post_layernorm" ? "post_layernorm"
    : "layer " + name.split(".").pop();
  fill($("features"), ...tower.features.map(({name, colors, seen}) => {
    const values = unpack(colors).values, n = picture.grid;
    const canvas = make("canvas", {width: n, height: n, role: "img",
      ariaLabel: `Features after ${titles(name)} as colors: patches of one color are alike`});
    const context = canvas.getContext("2d"), image = context.createImageData(n, n);
    for (let i = 0; i < n * n; i++) image.data.set([...values.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    context.putImageData(image, 0, 0);
    return make("figure", {}, canvas, make("figcaption", {}, make("code", {}, titles(name)), make("br"),
      `${percent(seen)} of variance`));
  }));
}

/* --------------------------------------------------------------------------------- part 4 */

function drawMerge() {
  const N = tokens.numImage, D = merge.shapes.projector[2], [raw, merged, scaled] = merge.norms;
  const rows = [["as they come", raw], ["merged", merged], ["as layer 0 reads them", scaled]];
  const width = 640, left = 10, step = 74, most = Math.max(...merge.norms.flat()) * 1.04;
  const x = value => left + (width - left - 20) * value / most;
  const height = rows.length * step + 28;
  const svg = make("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label":
    "The lengths of picture and text vectors before and after they are merged and scaled"});
  svg.style.cssText = "width: 100%; min-width: 460px; max-width: 800px; height: auto";
  const label = (text, options) => {
    const element = make("text", {"font-size": 13, fill: "currentColor", ...options}, text);
    element.style.fontFamily = "var(--sans)";
    return element;
  };
  const unit = 10 ** Math.floor(Math.log10(most)), tick = most / unit > 5 ? 2 * unit : most / unit > 2 ? unit : unit / 2;
  for (let value = 0; value <= most; value += tick) {
    svg.append(make("line", {x1: x(value), x2: x(value), y1: 6, y2: height - 28, stroke: "var(--line)"}),
      label(String(Number(value.toPrecision(3))), {x: x(value), y: height - 10, "text-anchor": "middle", fill: "var(--soft)"}));
  }
  rows.forEach(([name, norms], r) => {
    const y = 46 + r * step;
    svg.append(label(name, {x: left, y: y - 24, fill: "var(--soft)"}));
    norms.forEach((norm, i) => {
      // Dots of the picture above the line and those of the text below it, so that none hides another.
      const offset = i < N ? -10 + (i * 7 % 9) - 4 : 12, kind = i < N ? "image" : tokens.list[i - N].kind;
      svg.append(make("circle", {cx: x(norm), cy: y + offset, r: 4, class: kind, fill: "var(--kind)", "fill-opacity": i < N ? .35 : .8}));
    });
  });
  fill($("norms"), svg);

  const about = norms => `${mean(norms).toPrecision(3)} (${Math.min(...norms).toPrecision(3)} to ${Math.max(...norms).toPrecision(3)})`;
  const table = [
    ["as they come", ["tower ", shapeOf(merge.shapes.tower), " → projector ", shapeOf(merge.shapes.projector)].join(""),
      `embed_tokens ${shapeOf(merge.shapes.text)}`, raw],
    ["merged", `÷ √${D} = ÷ ${merge.factor.toPrecision(4)}`, "unchanged", merged],
    ["as layer 0 reads them", `× ${merge.factor.toPrecision(4)}`, `× ${merge.factor.toPrecision(4)}`, scaled]];
  fill($("merge"),
    make("thead", {}, make("tr", {}, ...["", "Picture", "Mean length", "Text", "Mean length"].map(text => make("th", {scope: "col"}, text)))),
    make("tbody", {}, ...table.map(([name, image, text, norms]) => make("tr", {}, make("th", {scope: "row"}, name),
      make("td", {}, image), make("td", {}, about(norms.slice(0, N))), make("td", {}, text), make("td", {}, about(norms.slice(N)))))));
}

/* --------------------------------------------------------------------------------- part 5 */

const onPicture = unpack(decoder.picture), onText = unpack(decoder.text);
const answer = tokens.list.filter(token => token.kind === "answer");

// The attention of the position that predicts a token; layer or head −1: the mean over them.
function averaged(array, token, layer, head) {
  const layers = layer < 0 ? [...Array(decoder.layers).keys()] : [layer];
  const heads = head < 0 ? [...Array(decoder.heads).keys()] : [head];
  const sum = new Float64Array(array.shape[3]);
  for (const l of layers) for (const h of heads) array.at(token, l, h).forEach((weight, i) => { sum[i] += weight; });
  return sum.map(weight => weight / (layers.length * heads.length));
}
function barRow(chip, part, kind, text) {
  const bar = make("div", {class: `bar ${kind}`}, make("i", {style: {width: `${Math.min(100, 100 * part)}%`}}));
  return [chip, bar, make("span", {class: "n"}, text)];
}
function drawDecoder() {
  const {token, layer, head} = state, position = answer[token].position - 1, focus = decoder.focus[token];
  const reads = tokens.list[position - tokens.numImage];
  answers.select(token);
  const weights = averaged(onPicture, token, layer, head);
  const most = heat($("reader").querySelector("canvas"), weights, focus && focus.box);
  fill($("positionWords"), `Position ${position}, which reads `, make("code", {}, visible(reads.text)), ", predicts ",
    make("code", {}, visible(answer[token].text)), ` with ${percent(decoder.lens[token][decoder.layers].own)}.`);
  $("layer").value = layer;
  $("layerIs").textContent = layer < 0 ? "mean over all" : `${layer} (0 to ${decoder.layers - 1})`;
  $("head").value = head;
  $("most").textContent = percent(most);
  $("reader").querySelector("canvas").setAttribute("aria-label", `What the position that predicts ${visible(answer[token].text)} attends to in the picture`);

  const text = averaged(onText, token, layer, head);
  const all = weights.reduce((sum, weight) => sum + weight, 0);
  const rows = [barRow(tokenChip({text: "<image>", label: "the picture", kind: "image"}), share(all), "image", percent(share(all)))];
  tokens.list.slice(0, position - tokens.numImage + 1).forEach((one, i) =>
    rows.push(barRow(tokenChip(one), share(text[i]), one.kind, percent(share(text[i])))));
  fill($("shares"), ...rows.flat());
  fill($("next"), ...decoder.next[token].flatMap(({text, p}) => barRow(tokenChip({text, kind: "answer"}), p, "answer", percent(p))));

  const ratio = (l, h) => focus ? focus.inside[l][h + 1] / focus.area : null;
  minis.buttons.forEach((button, i) => {
    const [l, h] = minis.at[i], map = averaged(onPicture, token, l, h);
    heat(button.firstChild, map, focus && focus.box);
    const best = focus && (h < 0 ? l === focus.bestLayer : l === focus.bestHead[0] && h === focus.bestHead[1]);
    button.lastChild.className = "ratio" + (best ? " best" : "");
    button.lastChild.textContent = focus ? `× ${ratio(l, h).toFixed(1)}` : percent(share(map.reduce((a, b) => a + b, 0)));
  });
  minis.select(minis.at.findIndex(([l, h]) => l === Math.max(0, layer) && h === head));
  $("miniWords").textContent = (focus
    ? "Under each map: how many times more attention falls into the box than if it were spread evenly over the picture; the best layer (mean over heads) and the best head are in color."
    : "Under each map: the share of the attention that goes to the picture.") + " Each map is as bright as its own largest weight.";
}
function drawFocus() {
  const rows = decoder.focus.flatMap((focus, i) => {
    if (!focus) return [];
    const layer = focus.inside[focus.bestLayer][0], [l, h] = focus.bestHead, head = focus.inside[l][h + 1];
    return [make("tr", {}, make("th", {scope: "row"}, tokenChip(answer[i])), make("td", {class: "n"}, String(answer[i].position - 1)),
      make("td", {class: "n"}, percent(focus.area)),
      make("td", {}, `layer ${focus.bestLayer}`), make("td", {class: "n"}, percent(layer)), make("td", {class: "n"}, make("b", {}, `× ${(layer / focus.area).toFixed(1)}`)),
      make("td", {}, `layer ${l}, head ${h}`), make("td", {class: "n"}, percent(head)), make("td", {class: "n"}, make("b", {}, `× ${(head / focus.area).toFixed(1)}`)))];
  });
  $("focusPart").hidden = !rows.length;
  if (lastBox >= 0) {
    const focus = decoder.focus[lastBox], inside = focus.inside[focus.bestLayer][0];
    fill($("focusWords"), "The position that predicts the last ", make("code", {}, visible(answer[lastBox].text)),
      ` pays ${percent(inside)} of it to the box, which covers ${percent(focus.area)} of the picture: × ${(inside / focus.area).toFixed(1)}, in layer ` +
      `${focus.bestLayer}, the one that looks there most.`);
  }
  const heads = [["Token", ""], ["Position", "n"], ["Area of the box", "n"], ["Best layer", ""], ["Inside the box", "n"], ["Ratio", "n"],
    ["Best head", ""], ["Inside the box", "n"], ["Ratio", "n"]];
  fill($("focus"), make("thead", {}, make("tr", {}, ...heads.map(([text, kind]) => make("th", {scope: "col", class: kind}, text)))), make("tbody", {}, ...rows));
}
function drawLens() {
  const rows = [];
  for (let layer = 0; layer <= decoder.layers; layer++) {
    rows.push(make("tr", {}, make("th", {scope: "row"}, layer ? `after layer ${layer - 1}` : "before layer 0"),
      ...decoder.lens.map((column, i) => {
        const {text, p, id, own} = column[layer], right = id === answer[i].id;
        return make("td", {class: right ? "right" : "", style: {"--p": p}, title:
          `${visible(text)}: ${percent(p)}; ${visible(answer[i].text)}: ${percent(own)}`}, visible(text), make("small", {}, percent(p)));
      })));
  }
  fill($("lens"), make("thead", {}, make("tr", {}, make("td", {style: {background: "none", padding: 0, "min-width": 0}}),
    ...answer.map(token => make("th", {scope: "col"}, visible(token.text))))), make("tbody", {}, ...rows));
}

/* --------------------------------------------------------------------------- parts 6 and 7 */

function drawResult() {
  const {width, height} = picture;
  $("resultPart").hidden = !run.boxes.length;
  if (!run.boxes.length) {
    fill($("resultWords"), "The tokens are decoded to text, and the text is the answer: ", make("code", {}, facts.answer || "(nothing)"), ".");
    return;
  }
  fill($("resultWords"), "Four ", make("code", {}, "<loc>"), " tokens are a box: y and x of its first corner, then of its second, in 1024ths of " +
    "the picture's sides. What follows is its label. ", make("code", {}, "parse_boxes"), " in ", make("code", {}, "inference.py"), " reads them.");
  withBoxes($("result"));
  const rows = run.boxes.flatMap(({label, box: [x1, y1, x2, y2]}) => [["y", y1, height], ["x", x1, width], ["y", y2, height], ["x", x2, width]].map(
    ([axis, value, side], i) => {
      const bin = Math.round(value / side * 1024);
      return make("tr", {}, make("th", {scope: "row", style: {color: colorOf(label), "font-weight": 600}}, i ? "" : label || "(no label)"), make("td", {},
        make("code", {}, `<loc${String(bin).padStart(4, "0")}>`)), make("td", {}, `${bin} / 1024 × ${side}`),
        make("td", {class: "n"}, `${axis} = ${value.toFixed(1)}`));
    }));
  fill($("boxes"), make("thead", {}, make("tr", {}, ...["Label", "Token", "In pixels", ""].map(text => make("th", {scope: "col"}, text)))),
    make("tbody", {}, ...rows));
}
function drawModules() {
  const whole = run.modules[0];
  const heads = ["Module", "Class", "Input", "Output", "Parameters", "Weights", "Returned", "Prompt", "Further token"];
  const rows = run.modules.map(module => {
    const time = (seconds, all) => make("td", {class: "n time", style: {"--share": `${100 * Math.min(1, (seconds || 0) / (all || 1))}%`}}, milliseconds(seconds));
    const name = module.depth ? module.name.split(".").slice(-1 - /\.\d+$/.test(module.name)).join(".") : module.name;
    const inside = /layers\.[1-9]\d*\./.test(module.name);
    return make("tr", {class: inside ? "more" : ""}, make("th", {scope: "row", title: module.name, style: {"--depth": module.depth}}, make("code", {}, name)),
      make("td", {}, module.source ? make("a", {class: "source", href: module.source.href}, make("code", {}, module.class), " ", make("span", {}, module.source.text))
        : make("code", {}, module.class)),
      make("td", {class: "mono"}, shapeOf(module.input)), make("td", {class: "mono"}, shapeOf(module.output)),
      make("td", {class: "n"}, grouped(module.parameters)), make("td", {class: "n"}, bytes(module.weightBytes)), make("td", {class: "n"}, bytes(module.outputBytes)),
      time(module.promptSeconds, whole.promptSeconds), time(module.tokenSeconds, whole.tokenSeconds));
  });
  fill($("modules"), make("thead", {}, make("tr", {}, ...heads.map((text, i) => make("th", {scope: "col", class: i > 3 ? "n" : ""}, text)))), make("tbody", {}, ...rows));
  $("tiedWords").textContent = "lm_head's weight is embed_tokens' (tied): it is counted once in what holds both.";
  $("all").addEventListener("change", event => $("modules").classList.toggle("all", event.target.checked));
}

/* ---------------------------------------------------------------------------------- start */

const lastBox = decoder.focus.findLastIndex(focus => focus);
const state = {
  patch: Math.floor(picture.grid / 2) * picture.grid + Math.floor(picture.grid / 2), channel: 0,
  towerLayer: Math.floor(tower.layers / 2), towerHead: -1,
  token: Math.max(0, lastBox), layer: lastBox < 0 ? decoder.layers - 1 : decoder.focus[lastBox].bestLayer, head: -1,
};
if (lastBox >= 0) {
  // Begin with the patch in the middle of what was found.
  const [y1, x1, y2, x2] = decoder.focus[lastBox].box, at = middle => Math.min(picture.grid - 1, Math.floor(middle * picture.grid));
  state.patch = at((y1 + y2) / 2) * picture.grid + at((x1 + x2) / 2);
}

function start() {
  dim = makeDim();
  drawTop();
  drawStages();
  cutter = patchButtons(picture.grid, "Patch", choosePatch);
  fill($("cutter"), make("img", {src: picture.resized, alt: "The picture, cut into patches"}), cutter.holder);
  $("channels").append(...CHANNELS.map((name, i) => make("label", {}, make("input", {type: "radio", name: "channel", value: name, checked: i === 0,
    onchange: () => { state.channel = i; drawNumbers(); }}), name)));
  drawTokens();

  const canvas = label => make("canvas", {width: 720, height: 720, role: "img", ariaLabel: label});
  const block = picture.grid / picture.cells;
  looker = patchButtons(picture.cells, "Attention of patch", cell =>
    choosePatch(Math.floor(cell / picture.cells) * block * picture.grid + cell % picture.cells * block));
  fill($("looker"), canvas("What the chosen patch attends to"), looker.holder);
  $("towerLayer").max = tower.layers - 1;
  headOptions($("towerHead"), tower.heads, -1);
  $("towerLayer").addEventListener("input", event => chooseTower(Number(event.target.value), state.towerHead));
  $("towerHead").addEventListener("change", event => chooseTower(state.towerLayer, Number(event.target.value)));
  towerMinis = miniMaps($("towerMinis"), tower.layers, tower.heads, hasHead, chooseTower);
  $("towerNote").textContent = "The small maps are the same patch in every layer and head, each as bright as its own largest weight." +
    (picture.cells < picture.grid ? ` Patches are joined to blocks of ${block} × ${block}, so that the page stays small.` : "") +
    (tower.headLayers.length < tower.layers ? ` Heads one by one only in layers ${tower.headLayers.join(", ")}, so that the page stays small.` : "");
  drawFeatures();
  drawMerge();

  fill($("answerTokens"), ...answer.map(token => tokenChip(token, "button")));
  answers = {select: choice([...$("answerTokens").children], answer.map((_, i) => [0, i]), token => { state.token = token; drawDecoder(); })};
  fill($("reader"), canvas("What this position attends to in the picture"));
  $("layer").max = decoder.layers - 1;
  headOptions($("head"), decoder.heads, -1);
  $("layer").addEventListener("input", event => { state.layer = Number(event.target.value); drawDecoder(); });
  $("head").addEventListener("change", event => { state.head = Number(event.target.value); drawDecoder(); });
  minis = miniMaps($("minis"), decoder.layers, decoder.heads, () => true, (layer, head) => { Object.assign(state, {layer, head}); drawDecoder(); });
  drawFocus();
  drawLens();
  drawResult();
  drawModules();
  drawLegends();
  choosePatch(state.patch);
  drawDecoder();
  document.documentElement.dataset.ready = "yes";
}
lit = new Image();
lit.onload = start;
lit.src = picture.resized;
