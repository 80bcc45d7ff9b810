// Forms: labels, hints, errors beside their fields, a summary that is read out, and nothing sent while a field is
// wrong. The rules are the API's own (RFC 9457 `errors`); what is checked here is only what is missing.
import { announce, append, h, unique } from "./dom.js";
import { asProblem, problemBox } from "./notice.js";
import { plaintextIn } from "./plaintext.js";
import { commands } from "./copy.js";

/**
 * @typedef {object} FieldSpec
 * @property {string} name as the API calls it
 * @property {string} label
 * @property {string} [hint]
 * @property {"text" | "password" | "textarea" | "select" | "radio" | "checkbox" | "number" | "lines"} [kind]
 * @property {string | boolean | number} [value]
 * @property {boolean} [required]
 * @property {boolean} [mono]
 * @property {number} [rows]
 * @property {boolean} [readonly]
 * @property {boolean} [holdsToken] the one field in which a token belongs
 * @property {string} [placeholder]
 * @property {string} [list] id of a datalist
 * @property {{ value: string, label: string, hint?: string }[]} [options]
 * @property {(text: string) => string} [reads] says in words what was typed so far
 * @property {string[]} [problems] codes of the API's problems that are about this field
 */

/** One field: its row, its value, its error. */
class Field {
  /** @param {FieldSpec} spec */
  constructor(spec) {
    this.spec = spec;
    this.id = unique(`field-${spec.name}`);
    this.hintId = spec.hint ? `${this.id}-hint` : "";
    this.reading = spec.reads ? h("p", { class: "hint reading", id: `${this.id}-reading`, hidden: true }) : null;
    this.hints = [this.hintId, this.reading?.id].filter(Boolean).join(" ");
    this.error = h("div", { class: "field-error", id: `${this.id}-error`, hidden: true });
    this.controls = this.#controls();
    this.row = this.#row();
  }

  #controls() {
    const { kind = "text", name, value, options = [], placeholder, mono, list, readonly, holdsToken } = this.spec;
    const shared = {
      id: this.id, name, "aria-describedby": this.hints || null, "aria-required": this.spec.required ? "true" : null,
      autocomplete: "off", autocapitalize: "none", spellcheck: "false", placeholder, readonly,
      data: holdsToken ? { holdsToken: "" } : {}, class: mono ? "mono wide" : "wide",
    };
    const text = value === undefined || value === null ? "" : String(value);
    if (kind === "textarea" || kind === "lines") return [h("textarea", { ...shared, rows: this.spec.rows ?? (kind === "lines" ? 3 : 5), value: text })];
    if (kind === "select") {
      const select = h("select", shared, options.map((o) => h("option", { value: o.value }, o.label)));
      /** @type {HTMLSelectElement} */ (select).value = text;
      return [select];
    }
    if (kind === "radio") {
      return options.map((option, index) => h("input", {
        type: "radio", name, id: index ? `${this.id}-${index}` : this.id, value: option.value, checked: option.value === text,
        "aria-describedby": option.hint ? `${this.id}-${index}-hint` : null,
      }));
    }
    if (kind === "checkbox") {
      return [h("input", { type: "checkbox", id: this.id, name, checked: value === true, "aria-describedby": this.hintId || null })];
    }
    const input = h("input", { ...shared, type: kind === "number" ? "text" : kind, inputmode: kind === "number" ? "numeric" : null, list, value: text });
    if (this.reading) {
      input.addEventListener("input", () => this.#read());
      // Read out once what is typed is complete, not with every letter.
      input.addEventListener("change", () => announce(this.reading?.textContent ?? ""));
    }
    return [input];
  }

  #row() {
    const { kind, label, hint, options = [], required } = this.spec;
    const optional = required || ["radio", "checkbox", "select"].includes(kind ?? "") ? null : h("span", { class: "optional" }, "optional");
    const hintNode = hint && h("p", { class: "hint", id: this.hintId }, hint);
    if (kind === "radio") {
      const choices = options.map((option, index) => h("div", { class: "choice" }, this.controls[index],
        h("label", { for: this.controls[index].id }, option.label),
        option.hint && h("p", { class: "hint", id: `${this.id}-${index}-hint` }, option.hint)));
      return h("fieldset", { class: "field" }, h("legend", {}, label), hintNode, this.error, choices);
    }
    if (kind === "checkbox") {
      return h("div", { class: "field choice" }, this.controls[0], h("label", { for: this.id }, label), hintNode, this.error);
    }
    return h("div", { class: "field" }, h("label", { for: this.id }, label, optional && " ", optional), hintNode, this.error, this.controls, this.reading);
  }

  #read() {
    const text = String(this.value);
    const reading = /** @type {HTMLElement} */ (this.reading);
    reading.textContent = text && this.spec.reads ? this.spec.reads(text) : "";
    reading.hidden = !text;
  }

  /** @returns {string | boolean | string[]} */
  get value() {
    const [first] = /** @type {HTMLInputElement[]} */ (this.controls);
    if (this.spec.kind === "checkbox") return first.checked;
    if (this.spec.kind === "radio") {
      return /** @type {HTMLInputElement[]} */ (this.controls).find((control) => control.checked)?.value ?? "";
    }
    if (this.spec.kind === "lines") return first.value.split("\n").map((line) => line.trim()).filter(Boolean);
    return this.spec.kind === "textarea" ? first.value : first.value.trim();
  }

  /** @param {(Node | string)[]} parts */
  fail(...parts) {
    this.error.replaceChildren();
    append(this.error, parts);
    this.error.hidden = parts.length === 0;
    for (const control of this.controls) {
      const described = [parts.length > 0 ? this.error.id : "", this.hints].filter(Boolean).join(" ");
      if (parts.length > 0) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
      if (this.spec.kind === "radio") continue;
      if (described) control.setAttribute("aria-describedby", described);
      else control.removeAttribute("aria-describedby");
    }
  }

  /** Whether something is in it that must not be sent; if so, says why and what to do. */
  refusesPlaintext() {
    if (this.spec.holdsToken) return false;
    const value = this.value;
    const text = Array.isArray(value) ? value.join("\n") : String(value);
    const kind = plaintextIn(text);
    if (kind) this.fail(...plaintextAdvice(kind));
    return Boolean(kind);
  }
}

/** What is said beside a field that was given plaintext. @param {string} kind */
export function plaintextAdvice(kind) {
  return [
    h("p", {}, h("strong", {}, `This looks like ${kind}, so it is refused here. Nothing was sent.`)),
    h("p", {}, "The control plane takes envelope metadata only. Wrap the credential under your own key, on a machine " +
      "that may hold it, and register what comes out:"),
    commands("Wrap and register", 'bouncerctl wrap --key-arn "$KMS_KEY_ARN" --in bundle.pem \\\n' +
      "  --aad env=production,bouncer=NAME,upstream=HOST:PORT \\\n  --register LOGICAL_PATH"),
    h("p", {}, "If it was pasted by mistake, clear the clipboard as well."),
  ];
}

/**
 * A form. `send` gets the values and makes the call; what it throws is shown where it belongs.
 * @param {object} options
 * @param {string} options.name for screen readers
 * @param {FieldSpec[]} options.fields
 * @param {string} options.submit
 * @param {(values: Record<string, any>) => Promise<void>} options.send
 * @param {Node[]} [options.actions] beside the button
 * @param {(problem: import("./api.js").Problem) => Node | null} [options.explain] a problem shown otherwise than usual
 */
export function form({ name, fields: specs, submit, send, actions = [], explain }) {
  const fields = specs.map((spec) => new Field(spec));
  const summary = h("div", { class: "form-summary", tabindex: -1 });
  const button = /** @type {HTMLButtonElement} */ (h("button", { type: "submit", class: "button primary" }, submit));
  const element = h("form", { class: "form", "aria-label": name, novalidate: true, method: "post" }, summary,
    fields.map((field) => field.row), h("div", { class: "actions" }, button, actions));

  /** @param {Field[]} wrong @param {string} title */
  const summarise = (wrong, title) => {
    const link = (/** @type {Field} */ field) => {
      const anchor = h("a", { href: `#${field.id}` }, field.spec.label);
      anchor.addEventListener("click", (event) => { event.preventDefault(); field.controls[0].focus(); });
      return h("li", {}, anchor);
    };
    summary.replaceChildren(h("div", { class: "notice bad", role: "alert" },
      h("div", { class: "notice-body" }, h("p", { class: "notice-title" }, title), h("ul", {}, wrong.map(link)))));
    wrong[0].controls[0].focus();
  };

  const missing = (/** @type {Field} */ field) => {
    const value = field.value;
    return field.spec.required && !field.row.hidden && (Array.isArray(value) ? value.length === 0 : value === "");
  };

  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-disabled") === "true") return;
    summary.replaceChildren();
    const shown = fields.filter((field) => !field.row.hidden);
    shown.forEach((field) => field.fail());
    const plain = shown.filter((field) => field.refusesPlaintext());
    if (plain.length > 0) return summarise(plain, "Nothing was sent: a plaintext credential is in this form.");
    const incomplete = shown.filter(missing);
    incomplete.forEach((field) => field.fail("This is needed."));
    if (incomplete.length > 0) return summarise(incomplete, "Nothing was sent: something is missing.");
    const values = Object.fromEntries(shown.map((field) => [field.spec.name, field.value]));
    button.setAttribute("aria-disabled", "true");
    try {
      await send(values);
    } catch (fault) {
      place(asProblem(fault));
    } finally {
      button.removeAttribute("aria-disabled");
    }
  });

  /** @param {import("./api.js").Problem} problem */
  const place = (problem) => {
    const wrong = [];
    for (const error of problem.errors) {
      // `callers[2]` belongs to the field `callers`.
      const field = fields.find((field) => field.spec.name === error.field.replace(/[[.].*$/, ""));
      if (!field || field.row.hidden) continue;
      const where = /\[(\d+)\]/.exec(error.field);
      const earlier = [...field.error.childNodes];
      field.fail(...earlier.map((node) => /** @type {any} */ (node)), h("p", {}, where ? `Line ${Number(where[1]) + 1}: ` : "", sentence(error.detail)));
      if (!wrong.includes(field)) wrong.push(field);
    }
    const about = fields.find((field) => !field.row.hidden && field.spec.problems?.includes(problem.code));
    if (about) {
      about.fail(h("p", {}, problem.detail), problem.next && h("p", {}, problem.next));
      wrong.push(about);
    }
    if (wrong.length > 0) return summarise(wrong, `${problem.title}. Nothing was changed.`);
    summary.replaceChildren(explain?.(problem) ?? problemBox(problem));
    summary.focus();
  };

  return {
    element, fields, summary,
    /** @param {string} name */
    field: (name) => /** @type {Field} */ (fields.find((field) => field.spec.name === name)),
  };
}

/** The API's rules are phrases ("must be …"). @param {string} text */
const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
