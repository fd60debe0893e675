// The switches of a search, all in one place: what each is called in the state and the address, what
// the API is told where it is on, and when it is offered.

import { isWritten } from "./words.js";

const $ = (id) => document.getElementById(id);
const isAsked = (state) => Boolean(state.upload || state.item);

const SWITCHES = {
  imagine: { box: "imagine", label: "imagine-switch", value: "true", isOffered: (facts, state) => facts.imagines > 0 && isAsked(state) },
  // Items of the gallery are in its style already.
  translate: { box: "translating", label: "translate", value: "true", isOffered: (facts, state) => facts.translates && Boolean(state.upload) },
  within: { box: "stay", label: "stay-switch", value: "cluster", isOffered: (facts, state) => facts.clusters > 0 && !isWritten(facts, state) },
  hybrid: { box: "hybrid", label: "hybrid-switch", value: "true", isOffered: (facts, state) => facts.words && facts.finds && Boolean(state.text) },
};
const NAMES = Object.keys(SWITCHES);

export const OFF = Object.fromEntries(NAMES.map((name) => [name, false]));

export function setUpSwitches(facts, changed) {
  $("imagine-count").textContent = facts.imagines;
  for (const name of NAMES) {
    const box = $(SWITCHES[name].box);
    box.addEventListener("change", () => changed({ [name]: box.checked }));
  }
}

export function showSwitches(facts, state) {
  for (const name of NAMES) {
    const { box, label, isOffered } = SWITCHES[name];
    $(box).checked = state[name];
    $(label).hidden = !(facts && isOffered(facts, state));
  }
}

// The switches that are on, as fields of a request.
export function switchedOn(facts, state) {
  const isOn = (name) => state[name] && (isAsked(state) || state.text) && SWITCHES[name].isOffered(facts, state);
  return Object.fromEntries(NAMES.filter(isOn).map((name) => [name, SWITCHES[name].value]));
}

export const inAddress = (state) => NAMES.filter((name) => state[name]).map((name) => [name, "1"]);
export const fromFields = (fields) => Object.fromEntries(NAMES.map((name) => [name, fields.has(name)]));
