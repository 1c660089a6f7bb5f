// The door: a token, said once. It is kept nowhere here; the server answers with a cookie that scripts cannot read.

import { post, whoami } from "./api.js";
import { brand, h } from "./ui.js";

export function loginPage(entered) {
  const fault = h("p", { class: "fault", role: "alert" });
  const field = h("input", { class: "field mono", type: "password", name: "token", id: "token", autocomplete: "current-password", required: true, spellcheck: "false" });
  const send = h("button", { class: "button primary", type: "submit" }, "Log in");
  const form = h("form", null,
    h("h1", { class: "brand" }, brand(), "taskd"),
    h("input", { type: "text", name: "username", autocomplete: "username", value: "taskd", hidden: true }),
    h("label", { class: "line", for: "token" }, "Token", field),
    fault, send,
    h("p", { class: "small muted" }, "Make one with ", h("code", null, "taskd token create --role operator"), ", or a link that logs in once with ", h("code", null, "taskd dashboard"), "."));
  form.onsubmit = async (event) => {
    event.preventDefault();
    send.disabled = true;
    try {
      await post("/login", { token: field.value.trim() });
      field.value = "";
      await whoami();
      entered();
    } catch (error) {
      fault.textContent = error.message;
      field.setAttribute("aria-invalid", "true");
      field.focus();
    }
    send.disabled = false;
  };
  setTimeout(() => field.focus());
  return h("main", { class: "login" }, h("div", { class: "card" }, form));
}
