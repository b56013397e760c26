"use strict";
const $ = id => document.getElementById(id);

// What the page is told of one answer, and what follows from it; the live page takes one after the other.
let told = null, facts, picture, tokens, tower, merge, decoder;
let pixels, means, byHead, onPicture, onText, answer, pairs, queries, keys, headSize, blockSize, labels, words, lastBox;
function take(next) {
  told = next;
  ({facts, picture, tokens, tower, merge, decoder} = told);
  pixels = unpack(picture.pixels);
  [means, byHead] = [unpack(tower.means), unpack(tower.byHead)];
  [onPicture, onText] = [unpack(decoder.picture), unpack(decoder.text)];
  answer = tokens.list.filter(token => token.kind === "answer");
  pairs = decoder.pairs;
  [queries, keys] = [unpack(pairs.query), unpack(pairs.key)];
  headSize = queries.shape[3];
  blockSize = picture.grid / picture.cells;
  labels = [...new Set(told.boxes.map(box => box.label))];
  words = told.boxes.map(({label, box}) => `${label} at ${box.map(Math.round).join(", ")}`).join("; ");
  lastBox = decoder.focus.findLastIndex(focus => focus);
}

/* --------------------------------------------------------------------------- small tools */

// An array as description.py packs it; at(i, j) is what stands under its first indices.
function unpack({type, shape, data}) {
  const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
  const values = {uint8: () => bytes, uint16: () => new Uint16Array(bytes.buffer),
    float32: () => new Float32Array(bytes.buffer),
    bfloat16: () => new Float32Array(Uint32Array.from(new Uint16Array(bytes.buffer), half => half << 16).buffer)}[type]();
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
  const svg = ["svg", "g", "image", "rect", "circle", "line", "polyline", "polygon", "path", "text"].includes(tag);
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
const percent = x => x > 0 && x < .0005 ? "<\u00a00.1\u00a0%" : (100 * x).toFixed(x < .0995 ? 1 : 0) + "\u00a0%";
const shapeOf = shape => shape ? "[" + shape.join(", ") + "]" : "–";
const grouped = n => n.toLocaleString("en-US");
const bytes = n => n < 1e3 ? n + " B" : n < 1e6 ? (n / 1e3).toFixed(1) + " kB" : n < 1e9 ? (n / 1e6).toFixed(1) + " MB"
  : (n / 1e9).toFixed(2) + " GB";
const milliseconds = s => s === null ? "–" : (1e3 * s).toFixed(s < .01 ? 2 : s < .1 ? 1 : 0) + " ms";
const clock = s => s < 1 ? (1e3 * s).toFixed(0) + " ms" : s.toFixed(1) + " s";
const signed = (x, digits) => x.toFixed(digits).replace("-", "−");
const short = x => typeof x === "string" ? x : Number.isInteger(x) && Math.abs(x) < 1e5 ? signed(x, 0) : Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3
  ? x.toExponential(1).replace("-", "−").replace("-", "−") : signed(x, Math.abs(x) >= 100 ? 1 : Math.abs(x) >= 10 ? 2 : 3);
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

/* -------------------------------------------------------------------------------- charts */

const label = (text, options) => {
  const element = make("text", {"font-size": 13, fill: "currentColor", ...options}, text);
  element.style.fontFamily = "var(--sans)";
  return element;
};
// An SVG that grows with its place, down to a width at which its words can still be read.
function chart(width, height, narrowest, name, ...children) {
  const svg = make("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": name}, ...children);
  svg.style.cssText = `width: 100%; min-width: ${narrowest}px; max-width: ${width}px; height: auto`;
  return svg;
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
    const gray = .15 * (.3 * pixels.values[3 * i] + .59 * pixels.values[3 * i + 1] + .11 * pixels.values[3 * i + 2]);
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = DARK[c] + gray;
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
// There are dozens of maps, and canvases are dear to make: those that nobody sees are used again.
const scratch = {};
function scratchCanvas(side, name) {
  const canvas = scratch[`${name} ${side}`] ||= make("canvas", {width: side, height: side});
  return [canvas, canvas.getContext("2d")];
}
function layerOfLight(weights, most, side) {
  const n = picture.cells, [small, context] = scratchCanvas(n, "small"), [large, over] = scratchCanvas(side, "large");
  const image = context.createImageData(n, n);
  weights.forEach((weight, i) => { image.data[4 * i + 3] = 255 * light(weight / most); });
  context.putImageData(image, 0, 0);
  over.globalCompositeOperation = "copy";
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
  context.drawImage(dim ||= makeDim(), 0, 0, side, side);
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
const sharp = Math.min(2, Math.max(1, devicePixelRatio || 1));  // pixels of a map for each of the page's
let offSwitch = null;  // (part of the model, layer, head or null) => a switch; of the live page
function miniMaps(holder, layers, heads, has, choose, part) {
  const buttons = [], at = [];
  holder.style.gridTemplateColumns = `max-content repeat(${heads + 1}, max-content)`;
  fill(holder, make("span"), make("span", {class: "head"}, "mean"),
    ...Array.from({length: heads}, (_, i) => make("span", {class: "head"}, `head ${i}`)));
  for (let layer = 0; layer < layers; layer++) {
    holder.append(make("span", {class: "side"}, `layer ${layer}`, ...(offSwitch ? [offSwitch(part, layer, null)] : [])));
    for (let head = -1; head < heads; head++) {
      if (!has(layer, head)) { holder.append(make("span")); continue; }
      const button = make("button", {ariaLabel: `layer ${layer}, ${headName(head)}`},
        make("canvas", {width: Math.round(64 * sharp), height: Math.round(64 * sharp)}), make("span", {class: "ratio"}));
      buttons.push(button);
      at.push([layer, head]);
      holder.append(offSwitch && head >= 0 ? make("div", {}, button, offSwitch(part, layer, head)) : button);
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
const colorOf = label => COLORS[labels.indexOf(label) % COLORS.length];
function withBoxes(holder) {
  const {width, height} = picture, unit = Math.max(width, height) / 100;
  const svg = make("svg", {viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"});
  for (const {label, box: [x1, y1, x2, y2]} of told.boxes) {
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
  svg.prepend(...told.masks.found.map(({overlay}) => make("image", {href: overlay, width, height})));
  fill(holder, make("img", {src: picture.given, alt: `${facts.image}${words ? ", with boxes: " + words : ""}`}), svg);
}

/* ------------------------------------------------------------------------ the top, part 1 */

function drawTop() {
  withBoxes($("hero"));
  $("prompt").textContent = facts.prompt || "(no prompt)";
  $("said").textContent = facts.answer || "(no answer)";
  $("facts").textContent = `${facts.ended ? "" : `cut off at ${answer.length} tokens · `}${facts.model} · ${grouped(facts.parameters)} parameters in ${facts.dtype} · ` +
    facts.image + (facts.set === "1" ? "" : ` · set ${facts.set}, your code`) + (facts.seconds === null ? "" : ` · ${clock(facts.seconds)}`);
}
function drawPath() {
  const whole = {input: [1, 3, picture.size, picture.size]};
  const stops = [["Picture", shapeOf(whole.input)], ["Tokens", `${tokens.numImage} + ${tokens.list.length}`],
    ["Tower", shapeOf(merge.shapes.tower)], ["Merge", shapeOf(merge.shapes.merged)],
    ["Decoder", `${decoder.next.length} token${decoder.next.length > 1 ? "s" : ""}`], ["Answer", labels.length ? told.boxes.length + (told.boxes.length > 1 ? " boxes" : " box") : "text"], ["Code", told.modules.length + " modules"]];
  fill($("path"), ...stops.map(([name, detail], i) =>
    make("li", {}, make("a", {href: `#part${i + 1}`}, `${i + 1}. ${name}`, make("small", {}, detail)))));
}
// The table of contents stays in sight and says where one is.
function followReading() {
  const update = () => {
    const links = [...$("path").querySelectorAll("a")], parts = links.map((_, i) => $(`part${i + 1}`));
    const shown = links.findIndex(link => link.hasAttribute("aria-current"));
    const line = innerHeight / 3, now = parts.findLastIndex(part => part.getBoundingClientRect().top < line);
    if (now === shown) return;
    links.forEach((link, i) => i === now ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
    const list = $("path"), link = links[Math.max(0, now)].parentElement;
    if (list.scrollWidth > list.clientWidth) list.scrollLeft = link.offsetLeft - (list.clientWidth - link.offsetWidth) / 2;
  };
  addEventListener("scroll", update, {passive: true});
  addEventListener("resize", update);
  return update;
}

const CHANNELS = ["red", "green", "blue"];
// Each channel in its own light: −1 is dark, 1 is all the light that this color has on a screen.
const TINTS = [[226, 50, 42], [24, 142, 66], [50, 100, 236]], NIGHT = [16, 16, 20];
const colorOfNumber = (x, channel) => TINTS[channel].map((c, i) => Math.round(NIGHT[i] + (c - NIGHT[i]) * (x + 1) / 2));
const numberAt = (x, y, channel) => pixels.values[(y * picture.size + x) * 3 + channel] / 127.5 - 1;

function channelPicture(channel) {
  const size = picture.size, canvas = make("canvas", {width: size, height: size, role: "img",
    ariaLabel: `The ${CHANNELS[channel]} numbers of the picture: −1 is dark, 1 is ${CHANNELS[channel]}`});
  const context = canvas.getContext("2d"), image = context.createImageData(size, size);
  const colors = Array.from({length: 256}, (_, value) => colorOfNumber(value / 127.5 - 1, channel));
  for (let i = 0; i < size * size; i++) {
    const color = colors[pixels.values[3 * i + channel]];
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = color[c];
    image.data[4 * i + 3] = 255;
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
    ...[0, 1, 2].map(c => stage(channelPicture(c), `${CHANNELS[c]}: −1 (dark) to 1`)));
}
function drawNumbers() {
  const P = picture.patch, row = Math.floor(state.patch / picture.grid), column = state.patch % picture.grid;
  const rows = [];
  for (let y = 0; y < P; y++) {
    const cells = [];
    for (let x = 0; x < P; x++) {
      const value = numberAt(column * P + x, row * P + y, state.channel), [r, g, b] = colorOfNumber(value, state.channel);
      cells.push(make("td", {style: {background: `rgb(${r},${g},${b})`}},
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
  // Of a long prompt the middle is left out: its tokens see and are seen as their neighbors.
  const numPrompt = all.length - answer.length, shown = all.map((_, i) => i).filter(i => numPrompt <= 40 || i < 12 || i >= numPrompt - 6);
  const columns = shown.map(i => all[i]).map((token, i) => make("th", {scope: "col", class: token.kind}, make("div", {}, token.label || visible(token.text))));
  const rows = shown.map(i => [all[i], i]).map(([token, i]) => make("tr", {}, make("th", {scope: "row", class: token.kind}, token.label || visible(token.text)),
    ...shown.map(j => [all[j], j]).map(([other, j]) => {
      const yes = tokens.mask[i][j] === "1";
      return make("td", {class: `${j ? "" : "wide "}${yes ? "yes " : ""}${other.kind}`, title:
        `${visible(token.text)} ${yes ? "sees" : "does not see"} ${visible(other.text)}`},
        make("span", {class: "skip"}, yes ? "yes" : "no"));
    })));
  fill($("mask"), make("thead", {}, make("tr", {}, make("td", {style: {background: "none"}}), ...columns)), make("tbody", {}, ...rows));
  $("maskWords").textContent = `Colored: may be looked at. The ${tokens.numImage} image tokens see and are seen alike, so they share one ` +
    "row and one column." + (shown.length < all.length ? ` ${all.length - shown.length} tokens in the middle of the prompt are left out: they see and ` +
    "are seen as their neighbors." : "");
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

const hasHead = (layer, head) => head < 0 || tower.headLayers.includes(layer);
const cellOf = patch => {
  const block = picture.grid / picture.cells, row = Math.floor(patch / picture.grid), column = patch % picture.grid;
  return Math.floor(row / block) * picture.cells + Math.floor(column / block);
};
const towerWeights = (layer, head, cell) => head < 0 ? means.at(layer, cell)
  : byHead.at(tower.headLayers.indexOf(layer), head, cell);

let cutter, looker, reader, towerMinis, minis, answers;

// What is not known is said, and not drawn.
function seenWords(seen, place) {
  const layers = kind => seen.flatMap((way, layer) => way === kind ? [layer] : []);
  const name = found => found.length === seen.length ? "any layer" : `layer${found.length > 1 ? "s" : ""} ${found.join(", ")}`;
  const unseen = layers("unseen"), computed = layers("arguments");
  return [
    ...(unseen.length ? [`No attention softmax of the expected shape was seen in ${name(unseen)} of ${place}, so there is no map of it.`] : []),
    ...(computed.length ? [`${computed.length === seen.length ? "Every layer" : "In " + name(computed) + " it"} uses scaled_dot_product_attention, ` +
      "which keeps its weights to itself: these were computed from what it was given."] : [])].join(" ");
}
function drawSeen() {
  for (const [id, seen, place] of [["towerSeen", tower.seen, "the tower"], ["decoderSeen", decoder.seen, "the decoder"]]) {
    $(id).textContent = seenWords(seen, place);
    $(id).hidden = !$(id).textContent;
  }
}

function drawTower() {
  const {towerLayer: layer, towerHead: head} = state, cell = cellOf(state.patch);
  const most = heat($("looker").querySelector("canvas"), towerWeights(layer, head, cell));
  looker.select(cell);
  $("towerLayer").value = layer;
  $("towerLayerIs").textContent = `${layer} (0 to ${tower.layers - 1})`;
  $("towerHead").value = head;
  $("towerMost").textContent = percent(most);
  for (const option of $("towerHead").options) option.disabled = !hasHead(layer, Number(option.value));
  $("towerWords").textContent = tower.seen[layer] === "unseen" ? "The weights of this layer could not be seen." : `${picture.cells === picture.grid ? "Patch" : "Block"} in row ` +
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
  fill($("features"), ...tower.features.map(({name, colors, seen, norm}) => {
    const values = unpack(colors).values, n = picture.grid;
    const canvas = make("canvas", {width: n, height: n, role: "img",
      ariaLabel: `Features after ${titles(name)} as colors: patches of similar color have similar vectors`});
    const context = canvas.getContext("2d"), image = context.createImageData(n, n);
    for (let i = 0; i < n * n; i++) image.data.set([...values.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    context.putImageData(image, 0, 0);
    return make("figure", {}, canvas, make("figcaption", {}, make("code", {}, titles(name)), make("br"),
      `${percent(seen)} of variance`, make("br"), `length ${norm[0].toPrecision(3)}`));
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
  if (layer >= 0) $("layer").value = layer;
  $("allLayers").checked = layer < 0;
  $("layerIs").textContent = layer < 0 ? "all" : `${layer} (0 to ${decoder.layers - 1})`;
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
  minis.select(minis.at.findIndex(([l, h]) => l === layer && h === head));
  drawLocation();
  drawPair();
  $("miniWords").textContent = (focus
    ? "Under each map: how many times more attention falls into the box than if it were spread evenly over the picture; the best layer (mean over heads) and the best head are marked."
    : "Under each map: the share of the attention that goes to the picture.") + " Each map is as bright as its own largest weight.";
}
// Each token is opened where its attention tells most: at the head that pays most to its box, or without a box at the
// layer that pays most to the picture.
function chooseToken(token) {
  atToken(token);
  drawDecoder();
}
function atToken(token) {
  const focus = decoder.focus[token];
  state.token = token;
  state.key = null;
  if (focus) [state.layer, state.head] = focus.openAt;
  else {
    const paid = Array.from({length: decoder.layers}, (_, layer) => mean([...averaged(onPicture, token, layer, -1)]));
    [state.layer, state.head] = [paid.indexOf(Math.max(...paid)), -1];
  }
}

// Why a <loc> may win with 5 %: all 1024, as one curve.
function drawLocation() {
  const {locations} = decoder, at = locations ? locations.tokens.indexOf(state.token) : -1;
  $("locationPart").hidden = at < 0;
  if (at < 0) return;
  const shares = unpack(locations.shares).at(at), most = locations.most[at];
  const values = Array.from(shares, one => share(one) * most), count = values.length;
  const total = values.reduce((a, b) => a + b, 0), said = Number(answer[state.token].text.match(/\d+/)[0]);
  let wide = 0, inside = values[said];
  while (inside < .9 * total && wide < count) {
    wide += 1;
    inside += (values[said - wide] || 0) + (values[said + wide] || 0);
  }
  // Which side of the picture this token measures: y, x, y, x.
  const first = answer.slice(0, state.token).reverse().findIndex(token => !token.text.startsWith("<loc"));
  const vertical = (first < 0 ? state.token : first) % 2 === 0, side = vertical ? picture.height : picture.width;
  const width = 360, height = 92, x = i => i / (count - 1) * width, y = value => height - 22 - (height - 36) * value / most;
  const points = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  fill($("location"), chart(width, height, 200, `Probability of each of the ${count} locations`,
    make("line", {x1: 0, x2: width, y1: height - 22, y2: height - 22, stroke: "var(--line)"}),
    make("polygon", {points: `0,${height - 22} ${points} ${width},${height - 22}`, class: "answer", fill: "var(--kind)", "fill-opacity": .28}),
    make("polyline", {points, class: "answer", fill: "none", stroke: "var(--kind)", "stroke-width": 1.5}),
    make("circle", {cx: x(said), cy: y(values[said]), r: 4, class: "answer", fill: "var(--kind)"}),
    ...[[0, "start", "<loc0000>"], [width, "end", `<loc${count - 1}>`]].map(([left, anchor, text]) =>
      label(text, {x: left, y: height - 6, "text-anchor": anchor, fill: "var(--soft)", "font-size": 11}))));
  $("locationTitle").textContent = `All ${count} locations (${vertical ? "from top to bottom" : "from left to right"})`;
  const tokenName = visible(answer[state.token].text), pixelsWide = wide / count * side;
  $("locationWords").textContent = `${tokenName} has only ${percent(values[said])}, because its neighbors say nearly the same and share ` +
    `the probability: ${percent(inside)} of it lies at most ${wide} steps away, which is ${pixelsWide.toFixed(1)} of the picture's ${side} pixels.`;
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
  $("lensWords").textContent = decoder.locations ? "A location wins with a few percent, because 1024 of them share what one number would say: " +
    "choose one above to see them all." : "";
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

/* ------------------------------------------------------------------- one pair of tokens */

const patchOfCell = cell => Math.floor(cell / picture.cells) * blockSize * picture.grid + cell % picture.cells * blockSize;

function scoresOf(token, layer, head) {
  const query = queries.at(token, pairs.layers.indexOf(layer), head), groups = decoder.heads / keys.shape[1];
  const all = keys.at(pairs.layers.indexOf(layer), Math.floor(head / groups)), count = answer[token].position;
  const scores = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let d = 0; d < headSize; d++) sum += query[d] * all[i * headSize + d];
    scores[i] = sum;
  }
  return {query, all, scores};
}
// Small numbers in a row as colors: orange below zero, blue above.
function strip(values, most, name) {
  const canvas = make("canvas", {width: values.length, height: 1, role: "img", ariaLabel: `${name}, ${values.length} numbers`});
  const context = canvas.getContext("2d"), image = context.createImageData(values.length, 1);
  values.forEach((value, i) => {
    const part = Math.min(1, Math.abs(value) / most), to = value < 0 ? [214, 96, 20] : [34, 96, 214];
    image.data.set([...to.map(c => Math.round(244 + (c - 244) * Math.sqrt(part))), 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}
function drawPair() {
  const {token} = state, focus = decoder.focus[token], known = pairs.layers;
  const wanted = state.layer >= 0 ? state.layer : focus ? focus.openAt[0] : decoder.layers - 1;
  const layer = known.reduce((best, one) => Math.abs(one - wanted) < Math.abs(best - wanted) ? one : best);
  const head = state.head >= 0 ? state.head : focus ? focus.openAt[1] : 0;
  const {query, all, scores} = scoresOf(token, layer, head), scale = headSize ** -.5;
  const most = Math.max(...scores), N = tokens.numImage;
  if (state.key === null || state.key >= scores.length) state.key = scores.indexOf(Math.max(...scores.subarray(0, N)));
  const chosen = state.key, isPatch = chosen < N, key = all.subarray(chosen * headSize, (chosen + 1) * headSize);
  const patchName = patch => `patch in row ${Math.floor(patch / picture.grid)}, column ${patch % picture.grid}`;
  const name = isPatch ? patchName(chosen) : visible(tokens.list[chosen - N].text);
  fill($("key"), new Option(isPatch ? patchName(chosen) : "a patch of the picture", "patch", false, isPatch),
    ...tokens.list.slice(0, scores.length - N).map((one, i) => new Option(`${visible(one.text)} (position ${one.position})`, N + i, false, N + i === chosen)));
  reader.select(isPatch ? cellOf(chosen) : -1);
  if (!isPatch) reader.holder.firstChild.tabIndex = 0;
  const reads = tokens.list[answer[token].position - 1 - N];
  fill($("pairWhere"), "Query of ", make("code", {}, visible(reads.text)), `, which predicts `, make("code", {}, visible(answer[token].text)),
    ` · layer ${layer}, head ${head}` + (layer === wanted ? "" : ` (of layer ${wanted} the page keeps no keys)`));

  const agrees = pairs.agrees[layer];
  $("pairSeen").hidden = agrees;
  $("pairNumbers").hidden = !agrees;
  $("pairSeen").textContent = `In layer ${layer} the softmax of this code gave other weights than softmax(q · k / √${headSize}), ` +
    "or gave none that could be seen. So these numbers would not explain them.";
  if (!agrees) return;

  const product = Array.from(query, (value, i) => value * key[i]), biggest = values => Math.max(...values.map(Math.abs), 1e-9);
  const both = Math.max(biggest([...query]), biggest([...key]));
  const row = (title, values, largest) => [make("span", {}, title), strip(values, largest, title)];
  fill($("strips"), ...row("query", query, both), ...row("key", key, both), ...row("query × key", product, biggest(product)));
  const inOrder = product.map((value, i) => [Math.abs(value), i]).sort((a, b) => b[0] - a[0]).slice(0, 3).map(([, i]) => i);
  const sum = scores[chosen], others = scores.reduce((total, score) => total + Math.exp((score - most) * scale), 0);
  const weight = Math.exp((sum - most) * scale) / others;
  const given = isPatch ? (blockSize === 1 ? share(onPicture.at(token, layer, head)[chosen]) : null) : share(onText.at(token, layer, head)[chosen - N]);
  const terms = inOrder.map(i => `(${signed(query[i], 2)} × ${signed(key[i], 2)})`).join(" + ");
  const step = (formula, value, ...words) => make("li", {}, make("code", {}, formula), make("strong", {}, value), make("span", {}, ...words));
  fill($("chain"),
    step("q · k", signed(sum, 2), `the sum of ${headSize} products, the largest of them ${terms}`),
    step(`÷ √${headSize}`, signed(sum * scale, 2), `the score; the highest of these ${scores.length} keys is ${signed(most * scale, 2)}`),
    step("softmax", percent(weight), `e^(${signed(sum * scale, 2)} − ${signed(most * scale, 2)}) ÷ ${others.toFixed(2)}` +
      (given === null ? "" : `; the model's own softmax gave ${percent(given)}`)));
  drawClocks(chosen, answer[token].position - 1, name);
}
// The rotary angles of both positions: one clock for each pair of numbers, some of them if there are many.
function drawClocks(keyAt, queryAt, name) {
  const [from, to] = [pairs.positions[keyAt], pairs.positions[queryAt]], half = headSize / 2;
  const shown = Math.min(half, 16), chosen = [...new Set(Array.from({length: shown}, (_, i) => Math.round(i * (half - 1) / Math.max(1, shown - 1))))];
  fill($("clocks"), ...chosen.map(i => {
    const speed = pairs.theta ** (-2 * i / headSize), size = 56, middle = size / 2;
    const hand = (position, kind, length) => {
      const angle = position * speed;
      return make("line", {x1: middle, y1: middle, x2: middle + length * Math.cos(angle), y2: middle - length * Math.sin(angle),
        class: kind, stroke: "var(--kind)", "stroke-width": 3, "stroke-linecap": "round"});
    };
    const apart = (to - from) * speed * 180 / Math.PI;
    const svg = make("svg", {viewBox: `0 0 ${size} ${size}`, width: size, height: size, role: "img", "aria-label":
      `Pair ${i}: the angles are ${apart.toFixed(1)} degrees apart`}, make("circle", {cx: middle, cy: middle, r: middle - 2, fill: "none", stroke: "var(--line)", "stroke-width": 1.5}),
      hand(from, keyAt < tokens.numImage ? "image" : "prompt", middle - 7), hand(to, "answer", middle - 7));
    return make("figure", {}, svg, make("figcaption", {}, `pair ${i}`, make("br"), Math.abs(apart) >= 360 ? `${(apart / 360).toFixed(1)} turns`
      : `${apart.toFixed(apart < 10 ? 1 : 0)}°`));
  }));
  const turn = i => 2 * Math.PI / pairs.theta ** (-2 * i / headSize);
  fill($("clockWords"), `The query is at position ${to} (orange), the key, ${name}, at ${from}: ${to - from} apart. The two halves of a head make ${half} ` +
    "pairs of numbers, and each pair is rotated by its position times its own speed: the first makes a whole turn in " +
    `${turn(0).toFixed(1)} tokens, the last in ${grouped(Math.round(turn(half - 1)))}. A product of query and key sees only the angle between ` +
    "them, which is how attention sees distances. Below each clock stands that angle.");
}

/* --------------------------------------------------------------- the stream and the cache */

function drawStream() {
  const {image, text} = decoder.stream, N = tokens.numImage, count = image.length;
  const all = [...image.flat(), ...text.flat()].filter(value => value > 0), low = Math.min(...all) / 1.15, high = Math.max(...all) * 1.15;
  const width = 800, height = 320, left = 52, right = 130, bottom = 40;
  const x = layer => left + (width - left - right) * layer / (count - 1);
  const y = value => 12 + (height - bottom - 12) * (1 - (Math.log(Math.max(value, low)) - Math.log(low)) / (Math.log(high) - Math.log(low)));
  const points = values => values.map((value, layer) => `${x(layer).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const marks = [];
  for (let unit = 10 ** Math.floor(Math.log10(low)); unit < high; unit *= 10) {
    for (const value of [unit, 2 * unit, 5 * unit]) {
      if (value < low || value > high) continue;
      marks.push(make("line", {x1: left, x2: width - right, y1: y(value), y2: y(value), stroke: "var(--line)"}),
        label(String(Number(value.toPrecision(2))), {x: left - 8, y: y(value) + 4, "text-anchor": "end", fill: "var(--soft)"}));
    }
  }
  const every = Math.ceil(count / 10);
  for (let layer = 0; layer < count; layer++) if (layer % every === 0 || layer === count - 1) {
    marks.push(label(layer ? `after ${layer - 1}` : "before 0", {x: x(layer), y: height - 14, "text-anchor": "middle", fill: "var(--soft)"}));
  }
  const band = `${points(image.map(row => row[1]))} ${points(image.map(row => row[2])).split(" ").reverse().join(" ")}`;
  const lines = text[0].map((_, i) => ({name: visible(tokens.list[i].text), kind: tokens.list[i].kind, values: text.map(row => row[i])}));
  lines.unshift({name: `${N} patches`, kind: "image", values: image.map(row => row[0])});
  // Names at the ends of their lines, moved apart where they would lie on each other; if there are many, some of them.
  const named = lines.filter((_, i) => i < 12).map(line => ({...line, at: y(line.values[count - 1])})).sort((a, b) => a.at - b.at);
  named.forEach((line, i) => { if (i) line.at = Math.max(line.at, named[i - 1].at + 16); });
  const over = named.length ? Math.max(0, named.at(-1).at - (height - bottom)) : 0;
  named.forEach(line => { line.at -= over; });
  fill($("stream"), chart(width, height, 560, "The length of the vectors before layer 0 and after each layer", ...marks,
    make("polygon", {points: band, class: "image", fill: "var(--kind)", "fill-opacity": .14}),
    ...lines.map(({values, kind}) => make("polyline", {points: points(values), class: kind, fill: "none", stroke: "var(--kind)", "stroke-width": kind === "image" ? 3 : 1.8})),
    ...named.map(({name, kind, at}) => label(name, {x: width - right + 10, y: at + 4, class: kind, fill: "var(--kind)"}))));
  $("streamWords").textContent = "The length (norm) of the vectors of the prompt, before layer 0 and after each layer; the scale is logarithmic. The band " +
    `holds all ${N} patches, the thick line is their mean.`;
}
function drawCache() {
  const {read, seconds, bytesPerToken} = decoder.cache;
  let before = 0;
  const steps = read.map(count => { const kept = before; before += count; return {kept, count}; });
  const width = 800, height = 220, left = 52, bottom = 40, most = before * 1.08;
  const wide = Math.min(48, (width - left - 10) / steps.length), y = value => 10 + (height - bottom - 10) * (1 - value / most);
  const columns = steps.flatMap(({kept, count}, i) => {
    const x = left + i * wide + 2;
    return [make("rect", {x, width: wide - 4, y: y(kept), height: y(0) - y(kept), class: "image", fill: "var(--kind)", "fill-opacity": .22}),
      make("rect", {x, width: wide - 4, y: y(kept + count), height: Math.max(2, y(kept) - y(kept + count)), class: "answer", fill: "var(--kind)"})];
  });
  const every = Math.ceil(steps.length * 22 / (width - left)), half = Math.round(before / 2);
  const marks = [0, half, before].flatMap(value => [make("line", {x1: left, x2: left + steps.length * wide, y1: y(value), y2: y(value), stroke: "var(--line)"}),
    label(String(value), {x: left - 8, y: y(value) + 4, "text-anchor": "end", fill: "var(--soft)"})]);
  steps.forEach((_, i) => { if (i % every === 0) marks.push(label(String(i), {x: left + (i + .5) * wide, y: height - 20, "text-anchor": "middle", fill: "var(--soft)"})); });
  fill($("cache"), chart(width, height, 460, "Tokens read and kept at each step", ...marks, ...columns,
    label("step", {x: left, y: height - 3, fill: "var(--soft)"})));
  const without = steps.reduce((total, {kept, count}) => total + kept + count, 0), further = (seconds || []).slice(1).sort((a, b) => a - b);
  $("cacheWords").textContent = `Orange: the tokens that a step reads; pale: those whose keys and values are in the cache. ${read.length} steps read ` +
    `${grouped(before)} tokens; without the cache they would read ${grouped(without)}. A kept token takes ${bytes(bytesPerToken)}, all of them ` +
    `${bytes(bytesPerToken * before)}.` + (seconds ? ` The prompt took ${clock(seconds[0])}` : "") +
    (further.length ? `, a further token ${clock(further[Math.floor(further.length / 2)])} (median).` : seconds ? "." : "");
}

/* ------------------------------------------------------------- the code, with its values */

// Some numbers of a value, as code.py packs them: at equal distances in its last two dimensions, of the first head.
const MOST_ROWS = 8, MOST_COLUMNS = 12;
function placesOf(count, most) {
  const step = Math.ceil(count / most), first = (count - 1) % step;
  return Array.from({length: Math.floor((count - 1) / step) + 1}, (_, i) => first + i * step);
}
function sampleOf(kind, packed) {
  let shape = JSON.parse(kind);
  if (shape.length === 3 && shape[2] === 3) shape = shape.slice(0, 2);
  const [height, width] = shape.length > 1 ? shape.slice(-2) : [1, shape[0]];
  const rows = placesOf(height, MOST_ROWS), columns = placesOf(width, MOST_COLUMNS);
  const values = typeof packed === "string" ? Array.from(unpack({type: "bfloat16", shape: [rows.length, columns.length], data: packed}).values) : packed.flat();
  return {rows, columns, values};
}
const colorOfValue = (value, most) => {
  if (Number.isNaN(value)) return [255, 0, 160];
  const part = Math.min(1, Math.abs(value) / most), to = value < 0 ? [214, 96, 20] : [34, 96, 214];
  return to.map(c => Math.round(244 + (c - 244) * Math.sqrt(part)));
};
const mostOf = values => Math.max(...values.map(Math.abs).filter(Number.isFinite), 1e-9);
function thumbnail({rows, columns, values}) {
  const canvas = make("canvas", {width: columns.length, height: rows.length, class: rows.length > 1 ? "" : "flat"}), context = canvas.getContext("2d");
  const image = context.createImageData(columns.length, rows.length), most = mostOf(values);
  values.forEach((value, i) => image.data.set([...colorOfValue(value, most), 255], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}
// A table of numbers, each on its color.
function numberTable(values, perRow, rowNames, columnNames) {
  const most = mostOf(values), rows = [];
  for (let i = 0; i * perRow < values.length; i++) {
    rows.push(make("tr", {}, make("th", {scope: "row"}, rowNames(i)), ...Array.from(values.slice(i * perRow, (i + 1) * perRow), value => {
      const [r, g, b] = colorOfValue(value, most);
      return make("td", {style: {background: `rgb(${r},${g},${b})`, color: r + g + b > 400 ? "#000" : "#fff"}}, short(value).replace(/^(−?)Infinity$/, "$1∞").replace("-∞", "−∞"));
    })));
  }
  const head = columnNames ? [make("thead", {}, make("tr", {}, make("td"), ...columnNames.map(name => make("th", {scope: "col"}, String(name)))))] : [];
  return make("table", {class: "cells"}, ...head, make("tbody", {}, ...rows));
}
// What an axis of a value counts, as far as its length tells it, and where on it one is looking.
function axisOf(count, shape, axis) {
  const position = answer.length ? answer[state.token].position - 1 : 0, N = tokens.numImage, T = tokens.list.length + N - answer.length;
  if (count === 1) return null;
  if (axis === shape.length - 2 && count === picture.grid ** 2) return {name: "patch", at: state.patch};
  if (axis === shape.length - 2 && count >= T) return {name: "position", at: Math.min(position, count - 1)};
  if (shape.length === 4 && axis === 1) return {name: "head", at: Math.min(Math.max(0, state.head), count - 1)};
  return {name: `axis ${axis}`, at: 0};
}
let askNumbers = null;  // of the live page: any row of a value, from a run of its own
const MOST_SHOWN = 512;
// The numbers of a value, below its line. place: the unit, the call and the line that it belongs to.
function inspector([line, name, kind, dtype, , , , , packed], place) {
  const sample = sampleOf(kind, packed), shape = JSON.parse(kind);
  const title = make("p", {class: "of"}, make("strong", {}, name), ` ${kind} ${dtype}`);
  const sampled = () => [make("p", {class: "note"}, shape.length > 1 ? `Rows and columns at equal distances${shape.length > 2 ? ", of the last two dimensions at the first place of the others" : ""}; two or three digits are kept.` : "Numbers at equal distances."),
    make("div", {class: "scroll"}, numberTable(sample.values, sample.columns.length, i => shape.length > 1 ? String(sample.rows[i]) : "", sample.columns))];
  if (!askNumbers || place.step === undefined || place.file.startsWith("mask_decoder")) return make("div", {class: "inspect"}, title, ...sampled());
  const axes = shape.slice(0, -1).map((count, axis) => axisOf(count, shape, axis)), at = axes.map(axis => axis ? axis.at : 0);
  const area = make("div", {class: "scroll", tabIndex: 0, role: "region", ariaLabel: `The numbers of ${name}`}), note = make("p", {class: "note"});
  const draw = async () => {
    note.textContent = "Running the model again to read them…";
    try {
      const {row} = await askNumbers({unit: place.unit, method: place.method, step: place.step, layer: place.layer, line, name, at});
      const values = row.list || Array.from(unpack(row).values), shown = values.slice(0, MOST_SHOWN), perRow = Math.min(12, shown.length);
      fill(area, numberTable(shown, perRow, i => String(i * perRow), null));
      note.textContent = `${name}[${[...at, ":"].join(", ")}]: ${values.length > shown.length ? `the first ${shown.length} of ` : ""}${grouped(shape.at(-1))} numbers` +
        (shape.at(-1) > values.length ? ` (of ${grouped(shape.at(-1))})` : "") + ".";
    } catch (error) {
      note.textContent = `These numbers could not be read: ${error.message}`;
      fill(area, ...sampled());
    }
  };
  const fields = axes.flatMap((axis, i) => axis ? [make("label", {class: "inline"}, `${axis.name} `, make("input", {type: "number", min: 0, max: shape[i] - 1, value: at[i], onchange: event => {
    at[i] = Math.min(shape[i] - 1, Math.max(0, Math.round(Number(event.target.value)) || 0));
    event.target.value = at[i];
    draw();
  }}), make("span", {class: "of"}, ` of ${shape[i]}`))] : []);
  draw();
  return make("div", {class: "inspect"}, title, make("div", {class: "two"}, ...fields), area, note);
}
const TYPES = {bfloat16: "bf16", float16: "f16", float32: "f32", float64: "f64", int64: "i64", int32: "i32", uint8: "u8", int8: "i8"};
function valueRow(made, inspect) {
  const [, name, kind, dtype, low, average, high, times, packed] = made, numbers = low === null ? [] : [low, average, high];
  const thumb = packed === undefined || !kind.startsWith("[") ? make("span") : make("button", {type: "button", class: "thumb", title: "Its numbers", ariaLabel: `The numbers of ${name} ${kind}`,
    onclick: event => inspect(made, event.currentTarget)}, thumbnail(sampleOf(kind, packed)));
  if (thumb.tagName === "BUTTON") {
    thumb.made = made;
    thumb.setAttribute("aria-expanded", "false");
  }
  return make("div", {class: "value"}, thumb, make("strong", {title: name}, name),
    make("span", {title: dtype || ""}, kind, ...(dtype && numbers.length ? [" ", make("i", {}, TYPES[dtype] || dtype)] : []),
      ...(times > 1 ? [" ", make("i", {}, `(last of ${times})`)] : [])),
    ...numbers.map((number, i) => make("span", {class: "n", title: ["smallest", "mean", "largest"][i]}, short(number))));
}
// Sizes, as of B, T, D = x.shape, stand in one row.
const isSize = made => made[3] === "int" && made[7] === 1 && made[1] !== "returned";
function valueRows(all, inspect) {
  const row = made => valueRow(made, inspect), sizes = all.filter(isSize), rest = all.filter(made => !isSize(made)).map(row);
  if (sizes.length < 2) return all.map(row);
  return [make("div", {class: "value sizes"}, ...sizes.map(([, name, kind]) => make("span", {}, make("strong", {}, name), ` ${kind}`))), ...rest];
}
// opened: the first lines of docstrings that are not folded. marks: [line, name, how it differs from the reference's].
// placeOf: of a value of this run, which call it belongs to; inspected: the values whose numbers are open, by line and name.
function codeTable(unit, values, opened, marks, placeOf, inspected) {
  const changed = new Set(unit.changed);
  const open = (made, button) => {
    const row = button.closest("tr"), key = `${made[0]} ${made[1]}`;
    for (const other of row.querySelectorAll("[aria-expanded=true]")) {
      const same = other === button;
      other.setAttribute("aria-expanded", "false");
      row.nextElementSibling.remove();
      [...inspected].filter(one => one.startsWith(`${made[0]} `)).forEach(one => inspected.delete(one));
      if (same) return;
    }
    inspected.add(key);
    button.setAttribute("aria-expanded", "true");
    row.after(make("tr", {class: "numbers-of"}, make("td", {class: "line"}), make("td", {colSpan: 2}, inspector(made, placeOf(made)))));
  };
  const rows = [], folded = new Map(unit.docs.map(([first, last]) => [first, last]));
  const line = i => {
    const pieces = unit.lines[i].map(piece => typeof piece === "string" ? ["text", piece] : piece);
    const indent = pieces.length ? pieces[0][1].match(/^ */)[0].length : 0, wrong = marks.filter(([at]) => at === i);
    return make("tr", {class: wrong.length ? wrong.some(isWrong) ? "wrong" : "to-do" : changed.has(i) ? "switched" : ""}, make("td", {class: "line"}, String(unit.line + i)),
      make("td", {class: "source-line", style: {"--indent": indent}},
        ...pieces.map(([kind, text], j) => make("span", {class: kind}, j ? text : text.slice(indent)))),
      make("td", {class: "made"}, ...valueRows(values.get(i) || [], open), ...(changed.has(i) ? [make("div", {class: "differs"}, "changed by a switch")] : []),
        ...wrong.map(([, name, how]) => make("div", {class: "differs"}, make("strong", {}, name.replace(/^return$/, "returned")), ` ${how}`,
          /^(stopped|not done)/.test(how) ? "" : " (the reference's, from the same input)"))));
  };
  for (let i = 0; i < unit.lines.length; i++) {
    rows.push(line(i));
    if (!folded.has(i) || folded.get(i) <= i) continue;
    // A docstring is folded behind its first line.
    const inside = [], first = i;
    const last = folded.get(i), text = rows.at(-1).children[1];
    for (let j = i + 1; j <= last; j++) inside.push(line(j));
    const button = make("button", {type: "button", class: "fold", onclick: () => {
      opened.has(first) ? opened.delete(first) : opened.add(first);
      update();
    }});
    const update = () => {
      const open = opened.has(first);
      button.setAttribute("aria-expanded", open);
      button.textContent = open ? "fold" : `${last - first} more lines`;
      inside.forEach(row => { row.hidden = !open; });
    };
    update();
    text.append(" ", button);
    rows.push(...inside);
    i = last;
  }
  const table = make("table", {class: "listing"}, make("thead", {class: "skip"}, make("tr", {}, ...["Line", "Code", "What it made"].map(text =>
    make("th", {scope: "col"}, text)))), make("tbody", {}, ...rows));
  // What was open stays so with the next answer's numbers.
  for (const key of [...inspected]) {
    const [line, name] = [Number(key.split(" ")[0]), key.slice(key.indexOf(" ") + 1)];
    const at = (values.get(line) || []).find(made => made[1] === name && made[8] !== undefined);
    const button = at && [...table.querySelectorAll(".thumb")].find(one => one.made === at);
    if (button) open(at, button);
  }
  return table;
}
const isWrong = ([, , how]) => how !== "not done yet";
const marksOf = name => (told.marks || {})[name] || [];
const wrongIn = name => marksOf(name).filter(isWrong).length;
const testsOf = name => (told.tests || []).filter(test => test.owner === name);
const codeUnits = new Map();  // name -> its element and what draws it again
function codeUnit(name) {
  const holder = make("details", {class: "unit", id: `code-${name}`});
  const where = make("span"), state = make("span", {class: "state"});
  holder.append(make("summary", {}, make("code", {}, name), " ", where, " ", state));
  const chosen = {step: null, layer: null}, opened = new Set(), inspected = new Set();
  const note = make("p", {class: "note"}), controls = make("div", {class: "two"}), said = make("div", {class: "said-of"});
  const area = make("div", {class: "scroll", tabIndex: 0, role: "region", ariaLabel: `The code of ${name}`});
  const place = unit => `${unit.file}:${unit.line}`;
  const field = (title, options, change) => {
    const select = make("select", {onchange: event => { change(Number(event.target.value)); update(); }}, ...options);
    return make("label", {class: "inline"}, title + " ", select);
  };
  const update = () => {
    const places = new Map(), unit = told.code.units[name], values = new Map(), calls = unit.calls.filter(call => call.step === chosen.step);
    const methods = [...new Set(calls.map(call => call.method))], words = [];
    for (const method of methods) {
      const same = calls.filter(call => call.method === method);
      const call = same.find(one => one.layer === chosen.layer) || same.find(one => one.layer === null) || same[0];
      for (const made of call.made) {
        if (!values.has(made[0])) values.set(made[0], []);
        values.get(made[0]).push(made);
        places.set(made, {unit: name, file: unit.file, method: call.method, step: call.step, layer: call.layer});
      }
      const called = call.method === name ? name : `${call.method}`;
      words.push(`${called} of ${call.module || "the model"}` + (call.count > 1 ? ` (the first of ${call.count} calls there)` : ""));
    }
    fill(area, codeTable(unit, values, opened, marksOf(name), made => places.get(made), inspected));
    note.textContent = (words.length ? `Values of ${words.join("; ")}: some of the numbers as colors (orange below zero, blue above; press them to read them), shape, ` +
      "type, then the smallest, mean and largest number." : "This was not called in this run.") +
      (told.code.whose ? ` The run is the switched one: ${told.code.whose}.` : "");
    fill(said, ...testsOf(name).map(test => make("pre", {class: `test ${test.state}`}, test.state === "solved" ? `${test.name}: solved.` : test.message)));
  };
  const draw = () => {
    const unit = told.code.units[name], steps = [...new Set(unit.calls.map(call => call.step))];
    const layers = [...new Set(unit.calls.map(call => call.layer))].filter(layer => layer !== null).sort((a, b) => a - b);
    if (!steps.includes(chosen.step)) chosen.step = steps[0];
    if (!layers.includes(chosen.layer)) chosen.layer = unit.calls.find(call => call.step === steps[0] && call.layer !== null)?.layer ?? null;
    const option = (text, value, now) => new Option(text, value, false, value === now);
    fill(controls,
      ...(steps.length > 1 ? [field("While it reads", steps.map(step => option(step ? "one more token" : "the prompt", step, chosen.step)),
        step => { chosen.step = step; })] : []),
      ...(layers.length > 1 ? [field("Layer", layers.map(layer => option(layer, layer, chosen.layer)), layer => { chosen.layer = layer; })] : []));
    controls.hidden = !controls.childElementCount;
    update();
  };
  const refresh = () => {
    where.textContent = place(told.code.units[name]);
    const wrong = wrongIn(name), failed = testsOf(name).some(test => test.state === "wrong");
    state.textContent = wrong ? `differs in ${wrong} ${wrong > 1 ? "places" : "place"}` : failed ? "its test fails" : marksOf(name).length ? "not done yet" : testsOf(name).length ? "solved" : "";
    state.className = `state${wrong || failed ? " bad" : ""}`;
    if (!holder.open) { delete holder.dataset.drawn; return; }
    if (holder.childElementCount === 1) {
      const file = [...document.querySelectorAll("a.source")].find(link => link.firstChild.textContent === name);
      // From a file of one's own the link leads to the source; a server has only the page.
      const link = file && location.protocol === "file:" ? [make("a", {href: file.href}, where.textContent)] : [];
      holder.append(make("div", {class: "about"}, said, controls, note, ...link), area);
    }
    holder.dataset.drawn = "yes";
    draw();
  };
  holder.addEventListener("toggle", () => { if (holder.open && !holder.dataset.drawn) refresh(); });
  codeUnits.set(name, refresh);
  return holder;
}
function drawCode() {
  for (const details of document.querySelectorAll("details.code")) {
    const names = told.code.parts[details.dataset.part] || [];
    details.hidden = !names.length;
    if (details.dataset.names !== names.join()) {
      details.dataset.names = names.join();
      fill(details, make("summary", {}, make("span", {class: "title"}, "The code of this part, with what each line made"),
        make("span", {class: "state"}), make("span", {class: "names"}, names.join(", "))), ...names.map(codeUnit));
    }
    const wrong = names.filter(name => wrongIn(name) || testsOf(name).some(test => test.state === "wrong"));
    const changed = names.filter(name => told.code.units[name].changed.length);
    details.querySelector(".state").textContent = wrong.length ? `to fix: ${wrong.join(", ")}` : changed.length ? `switched: ${changed.join(", ")}` :
      told.code.whose ? "of the switched run" : "";
    details.querySelector(".state").className = `state${wrong.length ? " bad" : ""}`;
    names.forEach(name => codeUnits.get(name)());
  }
}
// What names a class or function opens its code here, and not the file, which a browser shows from its top.
function listenForCode() {
  document.addEventListener("click", event => {
    const link = event.target.closest("a.source");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const name = link.firstChild.textContent;
    if (!(name in told.code.units)) return;
    event.preventDefault();
    openCode(name);
    history.replaceState(null, "", `#code-${name}`);
  });
}
function openCode(name) {
  const unit = document.getElementById(`code-${name}`);
  if (!unit) return;
  unit.closest("details.code").open = true;
  unit.open = true;
  unit.scrollIntoView();
  unit.firstChild.focus({preventScroll: true});
}

/* --------------------------------------------------------------------------- parts 6 and 7 */

function drawResult() {
  const {width, height} = picture;
  $("cutWords").textContent = facts.ended ? "" : `The answer was cut off at ${answer.length} tokens: the model had not written <eos> yet.`;
  $("resultPart").hidden = !told.boxes.length;
  if (!told.boxes.length) {
    fill($("resultWords"), "The tokens are decoded to text, and the text is the answer: ", make("code", {}, facts.answer || "(nothing)"), ".");
    return;
  }
  fill($("resultWords"), "Four ", make("code", {}, "<loc>"), " tokens are a box: y and x of its first corner, then of its second, in 1024ths of " +
    "the picture's sides. What follows is its label. ", make("code", {}, "parse_boxes"), " reads them.");
  withBoxes($("result"));
  // The tokens that the model wrote: from edges rounded to tenths of a pixel they would not come back.
  const written = facts.answer.match(/(?:<loc\d{4}>){4}/g) || [];
  const rows = told.boxes.flatMap(({label, box: [x1, y1, x2, y2]}, of) => {
    const [a, b, c, d] = (written[of] || "").match(/\d{4}/g) || [];
    // As in the box, the smaller of two opposite edges first.
    const [top, bottom] = [a, c].sort(), [left, right] = [b, d].sort();
    return [["y", y1, height, top], ["x", x1, width, left], ["y", y2, height, bottom], ["x", x2, width, right]].map(([axis, value, side, token], i) =>
      make("tr", {}, make("th", {scope: "row", style: {color: colorOf(label), "font-weight": 600}}, i ? "" : label || "(no label)"), make("td", {},
        make("code", {}, token ? `<loc${token}>` : "(none)")), make("td", {}, token ? `${Number(token)} / 1024 × ${side}` : ""),
        make("td", {class: "n"}, `${axis} = ${value.toFixed(1)}`)));
  });
  fill($("boxes"), make("thead", {}, make("tr", {}, ...["Label", "Token", "In pixels", ""].map(text => make("th", {scope: "col"}, text)))),
    make("tbody", {}, ...rows));
}
let askShape = null;  // of the live page: what other words would be drawn as
function shapePicture(values, color, name) {
  const side = Math.sqrt(values.length), canvas = make("canvas", {width: side, height: side, role: "img", ariaLabel: name});
  const context = canvas.getContext("2d"), image = context.createImageData(side, side);
  const inside = color.match(/\w\w/g).map(two => parseInt(two, 16));
  // Below 0 (outside) gray, above it (inside) the color; the nearer to 0, the less sure.
  values.forEach((value, i) => {
    const x = value / 127.5 - 1, sure = Math.abs(x), to = x > 0 ? inside : [24, 26, 34];
    image.data.set([...to.map(c => Math.round(150 + (c - 150) * (.25 + .75 * sure))), 255], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}
function maskRow(mask, color) {
  const isExample = mask.truth !== undefined, words = [...mask.words], size = mask.size || [picture.width, picture.height], side = 4;
  const panel = (element, ...caption) => make("figure", {}, element, make("figcaption", {}, ...caption));
  const cells = make("div", {class: "words", role: "group", ariaLabel: "The 16 words, row by row"}), drawn = make("div", {class: "drawn-shape"}), inPicture = make("div", {class: "laid"});
  const caption = make("figcaption");
  const light = at => drawn.querySelectorAll("i").forEach((cell, i) => cell.classList.toggle("lit", i === at));
  const draw = ({shape, overlay, share}) => {
    fill(drawn, shapePicture(unpack(shape).values, color, `The shape of ${mask.label || "a thing"}`), ...words.map(() => make("i")));
    fill(inPicture, make("img", {src: mask.picture || picture.given, alt: "The picture"}), make("img", {src: overlay, alt: `The mask of ${mask.label || "a thing"} in the picture`}));
    const same = isExample && words.every((word, i) => word === mask.words[i]);
    fill(caption, ...(same ? ["In the picture. Of true and decoded mask together, ", make("b", {}, percent(mask.same)), ` is in both; a filled box would have ${percent(mask.sameAsBox)}.`]
      : [`In the picture: ${percent(share)} of it.`]));
  };
  const number = word => String(word).padStart(3, "0");
  words.forEach((word, i) => {
    const cell = askShape ? make("input", {type: "number", min: 0, max: told.masks.codewords - 1, value: word, ariaLabel: `Word ${i}, row ${Math.floor(i / side)}, column ${i % side}`}) : make("span", {}, number(word));
    cell.addEventListener("pointerenter", () => light(i));
    cell.addEventListener("focus", () => light(i));
    for (const name of ["pointerleave", "blur"]) cell.addEventListener(name, () => light(-1));
    if (askShape) cell.addEventListener("input", async () => {
      const typed = Number(cell.value);
      if (cell.value === "" || !Number.isInteger(typed) || typed < 0 || typed >= told.masks.codewords) return;
      words[i] = typed;
      cell.classList.toggle("other", typed !== mask.words[i]);
      try { draw(await askShape(words, mask.box, size)); } catch { /* a newer one is on its way */ }
    });
    cells.append(cell);
  });
  draw(mask);
  const reset = askShape ? [make("button", {type: "button", class: "fold", onclick: () => { holder.replaceWith(maskRow(mask, color)); }}, "the first words again")] : [];
  const holder = make("div", {class: `mask-row${isExample ? " example" : ""}`},
    ...(isExample ? [panel(shapePicture(unpack(mask.truth).values, color, `The true mask of ${mask.label}, cut to its box`), `${mask.label}: its true mask, cut to its box and squeezed to 64 × 64`)] : []),
    panel(cells, isExample ? "said in 16 words" : make("b", {style: {color}}, mask.label || "(no label)"), isExample ? " (numbers of codewords)" : ": its 16 words", askShape ? ". Change one: " : ". ", ...reset),
    panel(drawn, "drawn from the words alone: 64 × 64 points"), make("figure", {}, inPicture, caption));
  return holder;
}
function drawMasks() {
  const {found, example, codewords, notes} = told.masks, rows = found.length ? found : example ? [example] : [];
  const alone = found.length ? "" : codewords ? (rows.length ? "This answer has none of them. So that you can see them all the same, the mask of a drawing, which is known, is said in words " +
    "and drawn again from them." : "This answer has none of them. Put a drawing onto the picture to see its mask said in words.") : "This checkpoint has no mask decoder.";
  $("maskIntro").textContent = [alone, ...notes.map(note => note.endsWith(".") ? note : `${note}.`)].filter(Boolean).join(" ");
  $("masks").hidden = !rows.length;
  // While words are being typed the same row stays.
  const key = JSON.stringify(rows.map(({words, box, label}) => [words, box, label]));
  if ($("masks").dataset.of === key && $("masks").contains(document.activeElement)) return;
  $("masks").dataset.of = key;
  fill($("masks"), ...rows.map(mask => maskRow(mask, mask.of === undefined ? COLORS[0] : colorOf(mask.label))));
}
function drawModules() {
  const whole = told.modules[0], timed = whole.promptSeconds !== null;
  const heads = ["Module", "Class", "Input", "Output", "Parameters", "Weights", "Returned", ...(timed ? ["Prompt", "Further token"] : [])];
  const rows = told.modules.map(module => {
    const time = (seconds, all) => make("td", {class: "n time", style: {"--share": `${100 * Math.min(1, (seconds || 0) / (all || 1))}%`}}, milliseconds(seconds));
    const name = module.depth ? module.name.split(".").slice(-1 - /\.\d+$/.test(module.name)).join(".") : module.name;
    const inside = /layers\.[1-9]\d*\./.test(module.name);
    return make("tr", {class: inside ? "more" : ""}, make("th", {scope: "row", title: module.name, style: {"--depth": module.depth}}, make("code", {}, name)),
      make("td", {}, module.source ? make("a", {class: "source", href: module.source.href}, make("code", {}, module.class), " ", make("span", {}, module.source.text))
        : make("code", {}, module.class)),
      make("td", {class: "mono"}, shapeOf(module.input)), make("td", {class: "mono"}, shapeOf(module.output)),
      make("td", {class: "n"}, grouped(module.parameters)), make("td", {class: "n"}, bytes(module.weightBytes)), make("td", {class: "n"}, bytes(module.outputBytes)),
      ...(timed ? [time(module.promptSeconds, whole.promptSeconds), time(module.tokenSeconds, whole.tokenSeconds)] : []));
  });
  fill($("modules"), make("thead", {}, make("tr", {}, ...heads.map((text, i) => make("th", {scope: "col", class: i > 3 ? "n" : ""}, text)))), make("tbody", {}, ...rows));
  $("timedWords").hidden = !timed;
  $("tiedWords").textContent = "lm_head's weight is embed_tokens' (tied): it is counted once in what holds both.";
}

/* ---------------------------------------------------------------------------------- start */

const state = {patch: 0, channel: 0, towerLayer: 0, towerHead: -1, token: 0, layer: 0, head: -1, key: null};
// Begin with the patch in the middle of what was found.
function firstState() {
  state.towerLayer = Math.floor(tower.layers / 2);
  state.token = Math.max(0, lastBox);
  if (lastBox < 0) { state.patch = mostVaried(); return; }
  const [y1, x1, y2, x2] = decoder.focus[lastBox].box;
  const at = middle => Math.min(picture.grid - 1, Math.floor(middle * picture.grid));
  state.patch = at((y1 + y2) / 2) * picture.grid + at((x1 + x2) / 2);
}
// The patch whose numbers differ most: there is something to see.
function mostVaried() {
  const P = picture.patch, grid = picture.grid;
  let best = 0, most = -1;
  for (let patch = 0; patch < grid * grid; patch++) {
    let sum = 0, squares = 0;
    for (let y = 0; y < P; y++) for (let x = 0; x < P; x++) {
      const value = numberAt(patch % grid * P + x, Math.floor(patch / grid) * P + y, 1);
      sum += value;
      squares += value * value;
    }
    const spread = squares / (P * P) - (sum / (P * P)) ** 2;
    if (spread > most) [best, most] = [patch, spread];
  }
  return best;
}

// Once: what a model of this size has, and what listens.
let updateReading;
function build() {
  const canvas = label => make("canvas", {width: Math.round(360 * sharp), height: Math.round(360 * sharp), role: "img", ariaLabel: label});
  cutter = patchButtons(picture.grid, "Patch", choosePatch);
  fill($("cutter"), make("img", {alt: "The picture, cut into patches"}), cutter.holder);
  $("channels").append(...CHANNELS.map((name, i) => make("label", {}, make("input", {type: "radio", name: "channel", value: name, checked: i === 0,
    onchange: () => { state.channel = i; drawNumbers(); }}), name)));

  looker = patchButtons(picture.cells, "Attention of patch", cell => choosePatch(patchOfCell(cell)));
  fill($("looker"), canvas("What the chosen patch attends to"), looker.holder);
  $("towerLayer").max = tower.layers - 1;
  headOptions($("towerHead"), tower.heads, -1);
  $("towerLayer").addEventListener("input", event => chooseTower(Number(event.target.value), state.towerHead));
  $("towerHead").addEventListener("change", event => chooseTower(state.towerLayer, Number(event.target.value)));
  towerMinis = miniMaps($("towerMinis"), tower.layers, tower.heads, hasHead, chooseTower, "tower");

  reader = patchButtons(picture.cells, "Key of patch", cell => { state.key = patchOfCell(cell); drawPair(); });
  fill($("reader"), canvas("What this position attends to in the picture"), reader.holder);
  $("key").addEventListener("change", event => {
    state.key = event.target.value === "patch" ? null : Number(event.target.value);
    drawPair();
  });
  $("allLayers").addEventListener("change", event => {
    state.layer = event.target.checked ? -1 : Number($("layer").value);
    drawDecoder();
  });
  $("layer").max = decoder.layers - 1;
  headOptions($("head"), decoder.heads, -1);
  $("layer").addEventListener("input", event => { state.layer = Number(event.target.value); drawDecoder(); });
  $("head").addEventListener("change", event => { state.head = Number(event.target.value); drawDecoder(); });
  minis = miniMaps($("minis"), decoder.layers, decoder.heads, () => true, (layer, head) => { Object.assign(state, {layer, head}); drawDecoder(); }, "decoder");
  $("all").addEventListener("change", event => $("modules").classList.toggle("all", event.target.checked));
  drawLegends();
  listenForCode();
  updateReading = followReading();
}

// The parts that are in sight are drawn at once. On the live page, which has no time, the others follow, one after the
// other, so that what the reader does meanwhile comes between them; a newer answer takes their place.
let inSightFirst = false, allDrawn = Promise.resolve();
function drawParts(parts) {
  const isInSight = part => { const {top, bottom} = $(`part${part}`).getBoundingClientRect(); return top < innerHeight + 100 && bottom > -100; };
  const all = Object.keys(parts), inSight = inSightFirst ? all.filter(isInSight) : all, later = all.filter(part => !inSight.includes(part)), mine = told;
  inSight.forEach(part => parts[part]());
  allDrawn = (async () => {
    for (const part of later) {
      await new Promise(done => setTimeout(done));
      if (told !== mine) return;
      parts[part]();
    }
  })();
}
// Takes what it is told of an answer and draws all of it. Where the same token is said, what was chosen stays.
async function show(next) {
  const image = new Image();
  image.src = next.picture.resized;
  await image.decode();
  const first = told === null, before = first ? null : answer[state.token]?.text;
  take(next);
  lit = image;
  dim = null;
  if (first) {
    firstState();
    build();
  }
  if ($("hero")) drawTop();
  drawPath();
  $("towerNote").textContent = "The small maps are the same patch in every layer and head, each as bright as its own largest weight." +
    (picture.cells < picture.grid ? ` Patches are joined to blocks of ${blockSize} × ${blockSize}, so that the page stays small.` : "") +
    (tower.headLayers.length < tower.layers ? ` Heads one by one only in layers ${tower.headLayers.join(", ")}, so that the page stays small.` : "");
  fill($("answerTokens"), ...answer.map(token => tokenChip(token, "button")));
  answers = {select: choice([...$("answerTokens").children], answer.map((_, i) => [0, i]), chooseToken)};
  const stays = !first && answer[state.token]?.text === before;
  if (!stays) atToken(first ? state.token : Math.max(0, lastBox));
  drawSeen();
  cutter.select(state.patch);
  drawParts({
    1: () => { drawStages(); $("cutter").firstChild.src = picture.resized; drawNumbers(); },
    2: drawTokens,
    3: () => { drawTower(); drawFeatures(); },
    4: drawMerge,
    5: () => { drawDecoder(); drawFocus(); drawStream(); drawLens(); drawCache(); },
    6: () => { drawResult(); drawMasks(); },
    7: drawModules,
  });
  drawCode();
  if (first && location.hash.startsWith("#code-")) openCode(location.hash.slice("#code-".length));
  updateReading();
  document.documentElement.dataset.ready = "yes";
}
const given = JSON.parse($("data").textContent);
if (given) show(given);
