// The icons: 16 by 16, drawn in the colour of the text. They stand beside words and never instead of them, so they are
// hidden from screen readers.
import { svg } from "./dom.js";

const PATHS = {
  ok: "M3.5 8.5l3 3 6-7",
  bad: "M4 4l8 8M12 4l-8 8",
  warn: "M8 2.2 14.6 13.600H1.400zM8 6.400v3.400M8 11.600v.200",
  off: "M3.500 8h9",
  info: "M8 7.200v4.300M8 4.500v.200M8 1.500a6.500 6.500 0 1 1 0 13 6.500 6.500 0 0 1 0-13z",
  wait: "M8 4.200V8l2.600 1.700M8 1.500a6.500 6.500 0 1 1 0 13 6.500 6.500 0 0 1 0-13z",
  overview: "M2 9.500 8 3l6 6.500M3.800 8v5.500h8.400V8",
  setup: "M2.500 3.500h2M2.500 8h2M2.500 12.500h2M7 3.500h6.500M7 8h6.500M7 12.500h6.500",
  bouncer: "M8 1.500 13.500 3.700v4.500c0 3.300-2.300 5.400-5.500 6.500-3.200-1.100-5.500-3.200-5.500-6.500V3.700z",
  resource: "M2.500 3h11v3.500h-11zM2.500 9.500h11V13h-11zM5 4.750h.1M5 11.250h.1",
  secret: "M10 6.500a3.500 3.500 0 1 0-3 3.460V11.500h2v2h2.500v-3L9.400 8.400M5.800 5.800h.1",
  audit: "M3 13.500V9M6.500 13.500V4.500M10 13.500V7M13.500 13.500V2.500",
  changes: "M2 8a6 6 0 1 0 2-4.500M2 2v3h3M8 4.800V8l2.200 1.400",
  flag: "M3.500 14.500V2M3.500 2.500h9l-2.200 3.200 2.200 3.300h-9",
  provider: "M4 7V5a4 4 0 0 1 8 0v2M2.800 7h10.400v6.800H2.800zM8 9.700v1.600",
  token: "M10.500 2.500a3 3 0 1 1 0 6 3 3 0 0 1 0-6zM8.300 7.700 2.500 13.500M4.500 11.500l2 2",
  copy: "M5.500 5.500V2.500h8v8h-3M2.500 5.500h8v8h-8z",
  menu: "M2 4h12M2 8h12M2 12h12",
  sun: "M8 5a3 3 0 1 1 0 6 3 3 0 0 1 0-6zM8 1v1.500M8 13.500V15M1 8h1.500M13.500 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  moon: "M13.500 9.500A6 6 0 0 1 6.500 2.500a6 6 0 1 0 7 7z",
  system: "M1.500 2.500h13v8.500h-13zM6 14h4M8 11v3",
  out: "M6 2.500H2.500v11H6M10 5l3.500 3L10 11M13.500 8H6",
  more: "M5.500 3.500 10 8l-4.500 4.500",
  add: "M8 3v10M3 8h10",
  live: "M8 6.500a1.500 1.500 0 1 1 0 3 1.500 1.500 0 0 1 0-3zM4.500 11.500a5 5 0 0 1 0-7M11.500 4.500a5 5 0 0 1 0 7",
  pause: "M5.500 3.500v9M10.500 3.500v9",
  download: "M8 2v8M4.500 7 8 10.500 11.500 7M2.500 13.500h11",
};

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", focusable: "false" },
    svg("path", {
      d: PATHS[name], fill: "none", stroke: "currentColor", "stroke-width": 1.6,
      "stroke-linecap": "round", "stroke-linejoin": "round",
    }),
  );
}
