'use strict';
// Both are comforts: without a script, titles show as the browser shows them, and tables keep their order.
const tip = document.createElement('div');
tip.className = 'tip';
tip.hidden = true;
tip.setAttribute('aria-hidden', 'true');
document.body.append(tip);
document.addEventListener('pointerover', event => {
  const mark = event.target.closest('.strip, .dot');
  tip.hidden = !mark;
  if (!mark) return;
  const title = mark.querySelector('title');
  if (title) {
    mark.dataset.tip = title.textContent;
    title.remove();
  }
  tip.textContent = mark.dataset.tip;
});
document.addEventListener('pointermove', event => {
  if (tip.hidden) return;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 16 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 12}px`;
});
const groups = new Map();
for (const table of document.querySelectorAll('table[data-sort]')) {
  const name = table.dataset.sort;
  groups.set(name, [...(groups.get(name) ?? []), table]);
}
const value = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.v ?? cell.textContent.trim();
  return text === '' || Number.isNaN(Number(text)) ? text : Number(text);
};
const compare = (a, b) => (typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b)));
for (const tables of groups.values()) {
  const heads = column => tables.map(table => table.tHead.rows[0].cells[column]);
  const sort = (column, downwards) => {
    const rows = tables.flatMap(table => [...table.tBodies[0].rows]).map(row => [value(row, column), row]);
    rows.sort(([a], [b]) => (a === '') - (b === '') || (downwards ? compare(b, a) : compare(a, b)));
    const sizes = tables.map(table => table.tBodies[0].rows.length);
    for (const [place, table] of tables.entries()) {
      table.tBodies[0].replaceChildren(...rows.splice(0, sizes[place]).map(([, row]) => row));
      for (const head of table.tHead.rows[0].cells) head.removeAttribute('aria-sort');
    }
    for (const head of heads(column)) head.setAttribute('aria-sort', downwards ? 'descending' : 'ascending');
  };
  for (const table of tables) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.append(...head.childNodes);
      button.addEventListener('click', () => sort(column, head.getAttribute('aria-sort') === 'ascending'));
      head.append(button);
    });
  }
}
