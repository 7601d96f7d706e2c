// What users of a keyboard or a screen reader need, and Sphinx and its theme do not write.

'use strict';

/** What scrolls sideways is reached by the Tab key; what does not, is not stopped at. */
function reachScrollable() {
    for (const each of document.querySelectorAll('pre, .table-wrapper, figure.diagram')) {
        if (each.scrollWidth > each.clientWidth) {
            each.tabIndex = 0;
        } else {
            each.removeAttribute('tabindex');
        }
    }
}

for (const caption of document.querySelectorAll('.caption[role="heading"]')) {
    caption.setAttribute('aria-level', '2');
}
document.querySelector('.sidebar-drawer')?.setAttribute('aria-label', 'All pages');
document.querySelector('.toc-drawer')?.setAttribute('aria-label', 'This page');

reachScrollable();
window.addEventListener('resize', reachScrollable);
