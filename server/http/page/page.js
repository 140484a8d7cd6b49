'use strict';
(() => {
  const $ = (id) => document.getElementById(id);

  function el(tag, properties, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (name === 'class') node.className = value;
      else if (name in node) node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  function bytes(count) {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let unit = 0;
    while (count >= 1024 && unit < units.length - 1) {
      count /= 1024;
      ++unit;
    }
    return `${unit === 0 ? count : count.toFixed(count < 9.995 ? 2 : count < 99.95 ? 1 : 0)} ${units[unit]}`;
  }

  // What is rebuilt only when it differs, so that nothing moves under the reader's hands.
  const shown = new Map();
  function differs(part, value) {
    const text = JSON.stringify(value);
    if (shown.get(part) === text) return false;
    shown.set(part, text);
    return true;
  }

  let token = sessionStorage.getItem('token') || '';
  async function ask(path, options) {
    const headers = Object.assign({}, options && options.headers);
    if (token) headers.Authorization = `Bearer ${token}`;
    const response = await fetch(path, Object.assign({}, options, {headers}));
    if (response.status === 401 || response.status === 403) $('access').hidden = false;
    if (!response.ok) throw new Error(await errorOf(response));
    return response;
  }
  async function errorOf(response) {
    try {
      const body = await response.json();
      return (body.error && body.error.message) || body.error || response.statusText;
    } catch {
      return response.statusText || `HTTP ${response.status}`;
    }
  }

  const componentName = {unet: 'model', clip: 'text encoders', vae: 'VAE'};
  const componentOf = (kind) => kind === 'model' ? 'unet' : kind;

  // What fills a device, in the order of its bar.
  function segmentsOf(device, models) {
    const segments = [];
    const checkpoints = [...new Set(models.map((model) => model.ckpt_name))];
    for (const checkpoint of checkpoints) {
      for (const component of ['unet', 'clip', 'vae']) {
        let count = 0;
        for (const model of models) {
          if (model.ckpt_name === checkpoint && componentOf(model.kind) === component) count += model.unshared_bytes[device.name] || 0;
        }
        if (count > 0) {
          segments.push({
            style: `s-${component}${checkpoints.indexOf(checkpoint) % 2 ? ' s-alt' : ''}`,
            name: checkpoints.length > 1 ? `${componentName[component]}, ${checkpoint}` : componentName[component], bytes: count});
        }
      }
    }
    const known = [['staging', 'staging'], ['activations', 'activations'], ['reserved', 'reserved']];
    for (const [kind, name] of known) {
      if (device[`${kind}_bytes`] > 0) segments.push({style: `s-${kind}`, name, bytes: device[`${kind}_bytes`]});
    }
    const used = segments.reduce((sum, segment) => sum + segment.bytes, 0);
    const other = device.total_bytes - device.free_bytes - used;
    if (other > device.total_bytes / 1000) segments.push({style: 's-other', name: 'others', bytes: other});
    return segments;
  }

  function showDevices(status) {
    $('devices').replaceChildren(...status.devices.map((device) => {
      const segments = segmentsOf(device, status.models);
      const text = segments.map((segment) => `${segment.name} ${bytes(segment.bytes)}`).concat(`free ${bytes(device.free_bytes)}`).join(', ');
      const bar = el('div', {class: 'bar', role: 'img', 'aria-label': `${device.name}: ${text}`});
      for (const segment of segments) {
        const piece = el('i', {class: segment.style, title: `${segment.name}: ${bytes(segment.bytes)}`});
        piece.style.width = `${100 * segment.bytes / device.total_bytes}%`;
        bar.append(piece);
      }
      const legend = segments.concat({style: 's-free', name: 'free', bytes: device.free_bytes});
      const waiting = device.queue_length;
      const used = Math.max(device.total_bytes - device.free_bytes, segments.reduce((sum, segment) => sum + segment.bytes, 0));
      return el('article', {class: 'card'},
        el('div', {class: 'head'}, el('h3', {class: 'mono'}, device.name), el('span', {class: 'quiet'}, device.description || device.kind),
          waiting > 0 ? el('span', {class: 'tag'}, `${waiting} waiting`) : null,
          el('span', {class: 'end'}, el('span', {class: 'big'}, bytes(used)), el('span', {class: 'quiet'}, ` of ${bytes(device.total_bytes)}`))),
        bar,
        el('ul', {class: 'legend'}, ...legend.map((segment) => el('li', {}, el('span', {class: `key ${segment.style}`}),
          el('span', {class: 'name', title: segment.name}, segment.name), el('span', {class: 'n'}, bytes(segment.bytes))))));
    }));
  }

  let deviceNames = [];
  const colourOf = (device) => `c${Math.max(0, deviceNames.indexOf(device)) % 8}`;

  function placement(model) {
    const total = model.devices.reduce((sum, device) => sum + device.measured_bytes, 0) || 1;
    const ribbon = el('div', {class: 'ribbon', 'aria-hidden': 'true'});
    for (const device of model.devices) {
      const piece = el('i', {class: colourOf(device.device)});
      piece.style.width = `${100 * device.measured_bytes / total}%`;
      ribbon.append(piece);
    }
    const heads = ['device', 'blocks', 'planned', 'measured', 'share'];
    return [ribbon, el('div', {class: 'scroll'}, el('table', {},
      el('thead', {}, el('tr', {}, ...heads.map((head, i) => el('th', {scope: 'col', class: i ? 'n' : ''}, head)))),
      el('tbody', {}, ...model.devices.map((device) => el('tr', {},
        el('td', {}, el('span', {class: `swatch ${colourOf(device.device)}`}), device.device), el('td', {class: 'n'}, device.blocks),
        el('td', {class: 'n'}, bytes(device.planned_bytes)), el('td', {class: 'n'}, bytes(device.measured_bytes)),
        el('td', {class: 'n'}, `${Math.round(100 * device.measured_bytes / total)} %`))))))];
  }

  // Where a component's blocks lie, in its order: as wide as they are large. They stay where they are while it is loaded,
  // and showModels forgets them afterwards.
  const blocksOf = new Map();
  async function showBlocks(model, place) {
    try {
      if (!blocksOf.has(model.handle)) {
        const answer = await ask(`/api/blocks?handle=${encodeURIComponent(model.handle)}`);
        blocksOf.set(model.handle, (await answer.json()).blocks);
      }
    } catch {
      return;  // unloaded meanwhile
    }
    const blocks = blocksOf.get(model.handle);
    const map = el('div', {class: 'ribbon blocks', role: 'img', 'aria-label': `${blocks.length} blocks in order, coloured by device`});
    const told = el('p', {class: 'quiet mono told'}, `${blocks.length} blocks, in their order`);
    for (const block of blocks) {
      const piece = el('i', {class: colourOf(block.device), title: `${block.name}: ${bytes(block.bytes)} on ${block.device}`});
      piece.style.flexGrow = block.bytes;
      piece.addEventListener('pointerenter', () => told.textContent = piece.title);
      map.append(piece);
    }
    place.replaceChildren(map, told);
  }

  const open = new Set(location.hash ? [decodeURIComponent(location.hash.slice(1))] : []);  // by handle; the address may name one
  function modelRow(model) {
    const blocks = el('div', {});
    const row = el('details', {open: open.has(model.handle)},
      el('summary', {}, el('span', {class: 'kind'}, model.kind), el('code', {class: 'quiet'}, model.handle),
        model.state !== 'READY' ? el('span', {class: 'tag'}, model.state.toLowerCase()) : null,
        model.in_use > 0 ? el('span', {class: 'tag'}, `${model.in_use} in use`) : null,
        el('span', {class: 'where'}, ...model.devices.map((device) => el('span', {},
          el('span', {class: `swatch ${colourOf(device.device)}`}), `${device.device} `, el('span', {class: 'quiet'}, bytes(device.measured_bytes)))))),
      ...placement(model), blocks);
    row.addEventListener('toggle', () => {
      if (!row.open) return open.delete(model.handle);
      open.add(model.handle);
      if (model.state === 'READY') showBlocks(model, blocks);
    });
    return row;
  }

  function showModels(status) {
    const ready = new Set(status.models.filter((model) => model.state === 'READY').map((model) => model.handle));
    for (const handle of blocksOf.keys()) {
      if (!ready.has(handle)) blocksOf.delete(handle);
    }
    const names = [...new Set(status.models.map((model) => model.ckpt_name))];
    $('models').replaceChildren(...names.map((name) => {
      const models = status.models.filter((model) => model.ckpt_name === name);
      models.sort((a, b) => 'mcv'.indexOf(a.kind[0]) - 'mcv'.indexOf(b.kind[0]));
      const total = models.reduce((sum, model) => sum + Object.values(model.unshared_bytes).reduce((a, b) => a + b, 0), 0);
      return el('article', {class: 'card'},
        el('div', {class: 'head'}, el('h3', {}, name), el('span', {class: 'quiet'}, models[0].family), el('span', {class: 'end quiet'}, bytes(total))),
        el('div', {class: 'model'}, ...models.map(modelRow)));
    }));
    if (names.length === 0) $('models').append(el('p', {class: 'card none'}, 'Nothing is loaded.'));
    const choice = $('model').value;
    $('model').replaceChildren(...names.map((name) => el('option', {value: name}, name)));
    if (names.includes(choice)) $('model').value = choice;
    $('go').disabled = names.length === 0;
  }

  function showLinks(status) {
    const used = status.links.filter((link) => link.bytes > 0 || link.bytes_per_second > 0);
    $('links-section').hidden = used.length === 0;
    $('links').replaceChildren(...used.map((link) => {
      const seconds = link.exposed_seconds + link.overlapped_seconds;
      return el('tr', {}, el('td', {class: 'mono'}, link.from), el('td', {class: 'mono'}, link.to),
        el('td', {class: 'n'}, link.bytes_per_second > 0 ? `${(link.bytes_per_second / 1e9).toFixed(1)} GB/s` : '–'),
        el('td', {class: 'n'}, bytes(link.bytes)), el('td', {class: 'n'}, seconds > 0 ? `${Math.round(100 * link.overlapped_seconds / seconds)} %` : '–'));
    }));
  }

  function showImages(status) {
    $('images-section').hidden = status.images.length === 0;
    $('images').replaceChildren(...status.images.map((image) => {
      const picture = el('img', {alt: `Picture ${image.number}, seed ${image.seed}`});
      ask(`/api/image?number=${image.number}`).then((response) => response.blob()).then((blob) => {
        picture.onload = () => URL.revokeObjectURL(picture.src);
        picture.src = URL.createObjectURL(blob);
      }).catch(() => {});
      return picture;
    }));
  }

  function say(health, text) {
    $('health').className = health;
    $('health-text').textContent = text;
  }

  async function refresh() {
    try {
      const status = await (await ask('/api/status')).json();
      deviceNames = status.devices.map((device) => device.name).concat('disk');
      if (differs('devices', [status.devices, status.models])) showDevices(status);
      if (differs('models', status.models)) showModels(status);
      if (differs('links', status.links)) showLinks(status);
      if (differs('images', status.images)) showImages(status);
      $('access').hidden = true;
      if (status.draining) say('lost', 'draining');
      else say('live', 'live');
    } catch (error) {
      say('lost', error instanceof TypeError ? 'not reachable' : error.message);
    }
  }
  async function poll() {
    if (!document.hidden) await refresh();
    setTimeout(poll, 1000);
  }

  // Server-sent events over fetch, which EventSource could not POST.
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    while (true) {
      const {done, value} = await reader.read();
      if (done) return;
      text += value;
      let end;
      while ((end = text.indexOf('\n\n')) >= 0) {
        const lines = text.slice(0, end).split('\n');
        text = text.slice(end + 2);
        const data = lines.filter((line) => line.startsWith('data: ')).map((line) => line.slice(6)).join('\n');
        const step = /^: step (\d+) of (\d+)$/.exec(lines[0]);  // between previews
        if (data) yield JSON.parse(data);
        else if (step) yield {step: Number(step[1]), steps: Number(step[2])};
      }
    }
  }

  function showPicture(base64, format) {
    $('picture').src = `data:image/${format};base64,${base64}`;
    $('picture').hidden = false;
    $('empty').hidden = true;
  }

  let running = null;
  async function draw() {
    running = new AbortController();
    const steps = Number($('steps').value);
    const request = {
      prompt: $('prompt').value, negative_prompt: $('negative').value, model: $('model').value, size: `${$('width').value}x${$('height').value}`,
      steps, cfg: Number($('cfg').value), stream: true, preview_every: Math.max(1, Math.round(steps / 12))};
    if ($('seed').value !== '') request.seed = Number($('seed').value);
    $('caption').className = '';
    $('caption').textContent = 'waiting';
    $('picture').alt = request.prompt;
    $('steps-done').value = 0;
    $('steps-done').hidden = false;
    $('stop').hidden = false;
    $('go').disabled = true;
    try {
      const response = await ask('/v1/images/generations', {
        method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(request), signal: running.signal});
      for await (const event of events(response)) {
        if (event.error) throw new Error(event.error.message);
        if (event.b64_json) showPicture(event.b64_json, event.output_format);
        if (event.steps) {
          $('steps-done').value = event.step / event.steps;
          $('caption').textContent = `step ${event.step} of ${event.steps}`;
        } else {
          $('caption').textContent = [`seed ${event.seed}`].concat(event.warnings).join(' · ');
        }
      }
    } catch (error) {
      $('caption').className = error.name === 'AbortError' ? '' : 'error';
      $('caption').textContent = error.name === 'AbortError' ? 'stopped' : error.message;
    }
    running = null;
    $('steps-done').hidden = true;
    $('stop').hidden = true;
    $('go').disabled = false;
  }

  $('draw').addEventListener('submit', (event) => {
    event.preventDefault();
    if (!running) draw();
  });
  $('stop').addEventListener('click', () => running && running.abort());
  $('access').addEventListener('submit', (event) => {
    event.preventDefault();
    token = $('token').value.trim();
    sessionStorage.setItem('token', token);
    refresh();
  });
  $('draw-section').hidden = document.body.dataset.draw !== 'yes';
  poll();
})();
