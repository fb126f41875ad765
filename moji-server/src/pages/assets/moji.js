// Keeps a page up to date: the server says that something has happened, the page is asked for again, and what differs
// in the elements marked data-live is changed in place, so that focus, selection, scrolling and what is unfolded stay.
// Text is only ever set as text.
'use strict';
(() => {
  const main = document.querySelector('main');
  const status = document.getElementById('live');
  const own = Number(main.dataset.build) || null;
  // This machine's clock may be wrong; the page says what the server's says.
  let skew = Date.parse(document.documentElement.dataset.now) - Date.now();

  // ---- Times -------------------------------------------------------------------------------------------------
  const seconds = (element) => Math.max(0, Math.floor((Date.now() + skew - Date.parse(element)) / 1000));
  const roughly = (s) =>
    s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  const exactly = (s) => {
    const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
    const first = Math.max(0, units.findIndex(([size]) => s >= size));
    const at = s === 0 ? 3 : first;
    return units.slice(at, at + 2).map(([size, unit], i) => `${Math.floor((i ? s % units[at][0] : s) / size)} ${unit}`).join(' ');
  };
  const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const tick = () => {
    for (const time of document.querySelectorAll('time[data-tick]')) {
      const s = seconds(time.dateTime);
      set(time, time.dataset.tick === 'ago' ? `${roughly(s)} ago` : exactly(s));
    }
    for (const bar of document.querySelectorAll('progress[data-since]')) bar.value = Math.min(bar.max, seconds(bar.dataset.since));
  };

  // ---- What differs ------------------------------------------------------------------------------------------
  const key = (node) => node.nodeType === 1 ? node.id || node.dataset?.key || '' : '';
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);
  const attributes = (old, fresh) => {
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes]) {
      // What a reader has unfolded stays so.
      if (!fresh.hasAttribute(name) && !(name === 'open' && old.nodeName === 'DETAILS')) old.removeAttribute(name);
    }
  };
  const become = (old, fresh) => {
    if (old.nodeType !== 1) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    attributes(old, fresh);
    const keyed = new Map([...old.children].filter(key).map((child) => [key(child), child]));
    const wanted = new Set([...fresh.children].map(key));
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const known = key(next) && keyed.get(key(next));
      // What has gone, goes first: then the others need not move, which would take the focus away.
      while (at && key(at) && !wanted.has(key(at))) {
        const gone = at;
        at = at.nextSibling;
        gone.remove();
      }
      if (at && alike(at, next)) {
        become(at, next);
        at = at.nextSibling;
      } else if (known && alike(known, next)) {
        (old.moveBefore ?? old.insertBefore).call(old, known, at);
        become(known, next);
      } else {
        old.insertBefore(document.importNode(next, true), at);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  };

  // ---- The page again ----------------------------------------------------------------------------------------
  let asking = false, again = false, timer = null, last = 0;
  const refresh = async () => {
    timer = null;
    if (asking) { again = true; return; }
    asking = true;
    last = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: 'text/html' } });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
        const now = Date.parse(page.documentElement.dataset.now);
        if (now) skew = now - Date.now();
        for (const old of document.querySelectorAll('[data-live]')) {
          const fresh = old.id && page.getElementById(old.id);
          if (fresh) become(old, fresh);
        }
        document.title = page.title;
        set(document.querySelector('footer time'), page.querySelector('footer time').textContent);
        tick();
      }
    } catch { /* The server is away; the stream tells when it is back. */ }
    asking = false;
    if (again) { again = false; soon(); }
  };
  // Many things happen at once, and one look at a time is enough.
  const soon = () => { timer ??= setTimeout(refresh, Math.max(150, last + 1000 - Date.now())); };

  // ---- What happens ------------------------------------------------------------------------------------------
  const KINDS = ['queued', 'started', 'ended', 'succeeded', 'failed', 'parked', 'held', 'withdrawn', 'published', 'builder_connected',
    'builder_lost', 'builder_back', 'builder_left', 'queue_empty', 'steered', 'reset', 'message'];
  const isStill = 'still' in main.dataset || !document.querySelector('[data-live]');
  let stream = null;
  const say = (text, waits) => { status.hidden = false; status.classList.toggle('waits', waits); set(status, text); };
  const happened = (event) => {
    if (own === null || event.type === 'reset') return soon();
    try {
      const { build } = JSON.parse(event.data);
      if (!build || build.id === own) soon();
    } catch { soon(); }
  };
  const listen = () => {
    if (isStill || stream) return;
    let wasLost = false;
    stream = new EventSource('/events');
    stream.onopen = () => {
      say('Live', false);
      if (wasLost) soon();
    };
    stream.onerror = () => {
      wasLost = true;
      say('Away', true);
      // A refusal is for good, for the browser: not for us.
      if (stream.readyState === 2) { stream = null; setTimeout(() => { if (!document.hidden) { listen(); soon(); } }, 5000); }
    };
    for (const kind of KINDS) stream.addEventListener(kind, happened);
  };

  // ---- Logs --------------------------------------------------------------------------------------------------
  const LINES_MAX = 5000;
  const LOOK = /^[a-z-]{1,24}$/;
  const follow = (list) => {
    const box = list.parentElement;
    let offset = list.dataset.offset, source = null, isDone = false;
    let number = Number(list.lastElementChild?.getAttribute('value')) || (list.classList.contains('unnumbered') ? null : 0);
    let sticks = true;
    const jump = document.createElement('button');
    jump.type = 'button';
    jump.className = 'jump';
    jump.hidden = true;
    jump.textContent = 'Follow';
    const toEnd = () => { list.scrollTop = list.scrollHeight; };
    jump.addEventListener('click', () => { sticks = true; jump.hidden = true; toEnd(); });
    box.append(jump);
    list.addEventListener('scroll', () => {
      sticks = list.scrollTop + list.clientHeight >= list.scrollHeight - 24;
      jump.hidden = sticks || isDone;
    }, { passive: true });
    const line = (segments) => {
      const item = document.createElement('li');
      if (number !== null) item.setAttribute('value', String(++number));
      for (const [look, text] of segments) {
        const span = document.createElement('span');
        if (LOOK.test(look)) span.className = `s-${look}`;
        span.textContent = text;
        item.append(span);
      }
      return item;
    };
    const more = (event) => {
      if (event.lastEventId) offset = event.lastEventId;
      let lines;
      try { lines = JSON.parse(event.data); } catch { return; }
      if (!Array.isArray(lines)) return;
      box.querySelector('.none')?.remove();
      list.append(...lines.slice(-LINES_MAX).map(line));
      while (list.childElementCount > LINES_MAX) list.firstElementChild.remove();
      if (sticks) toEnd();
    };
    const end = () => { isDone = true; jump.hidden = true; source?.close(); source = null; };
    const open = () => {
      if (isDone || source) return;
      source = new EventSource(`${list.dataset.lines}?offset=${offset}`);
      source.onmessage = more;
      source.addEventListener('lines', more);
      source.addEventListener('end', end);
      source.onerror = () => { if (source?.readyState === 2) { source = null; setTimeout(() => { if (!document.hidden) open(); }, 3000); } };
    };
    toEnd();
    return { open, close: () => { source?.close(); source = null; } };
  };

  // ---- Begin -------------------------------------------------------------------------------------------------
  const logs = [...document.querySelectorAll('[data-lines]')].map(follow);
  const wake = () => { listen(); logs.forEach((log) => log.open()); };
  // A browser has few connections for one server: a page that nobody sees needs none.
  const sleep = () => { stream?.close(); stream = null; logs.forEach((log) => log.close()); };
  document.addEventListener('visibilitychange', () => { if (document.hidden) sleep(); else { wake(); if (!isStill) soon(); } });
  addEventListener('pagehide', sleep);
  addEventListener('pageshow', (event) => { if (event.persisted) { wake(); if (!isStill) soon(); } });
  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input, select, textarea');
    if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      document.getElementById('search').focus();
    }
  });
  // The phase of what runs changes without an event.
  setInterval(() => { if (!document.hidden && !isStill && 'moving' in main.dataset) soon(); }, 10000);
  setInterval(tick, 1000);
  if (!document.hidden) wake();
})();
