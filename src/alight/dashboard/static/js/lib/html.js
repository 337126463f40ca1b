// The one place that knows the component library. Markup is written as html`<p>${text}</p>`: text is always text, for
// nodes are made one by one and nothing is ever parsed as HTML.
import { h } from "../../vendor/preact.mjs";
import htm from "../../vendor/htm.mjs";

export { Fragment, render } from "../../vendor/preact.mjs";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../vendor/preact-hooks.mjs";
export const html = htm.bind(h);
