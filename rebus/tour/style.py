"""The style sheet of the page."""

STYLE = """
:root{color-scheme:light dark;--ink:#1d2125;--quiet:#6b7178;--paper:#fbfaf7;--card:#fff;--line:#e4e1da;
--good:#1f7a4d;--bad:#b3372f;--accent:#2f6fb3;--track:#ebe8e1}
@media(prefers-color-scheme:dark){:root{--ink:#e8e6e1;--quiet:#9aa0a6;--paper:#16181b;--card:#1e2125;--line:#31353a;
--good:#5cc492;--bad:#f0857c;--accent:#7fb2ea;--track:#2c3035}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 ui-sans-serif,system-ui,"Segoe UI",Roboto,
"Helvetica Neue",sans-serif}
main{max-width:68rem;margin:0 auto;padding:3.5rem 1.5rem 4rem}
h1,h2,.lead,.words,.caption,.said{font-family:ui-serif,Charter,"Iowan Old Style",Georgia,"Times New Roman",serif}
h1{font-size:3.2rem;line-height:1;letter-spacing:-.02em;margin:0 0 .6rem}
h2{font-size:1.6rem;line-height:1.2;margin:0 0 .4rem;font-weight:600}
h2 small{font:500 .8rem ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color:var(--accent);margin-left:.5rem;
white-space:nowrap}
.lead{font-size:1.35rem;line-height:1.4;max-width:36rem;margin:0 0 .4rem}
.quiet,footer,section>p{color:var(--quiet)}
section{margin-top:3.5rem}
section>p{max-width:46rem;margin:.2rem 0 1.2rem}
.missing{border-left:3px solid var(--accent);padding:.4rem .9rem;margin-top:1.5rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.95rem}
th{text-align:left;font-weight:500;color:var(--quiet);font-size:.82rem}
td,th{padding:.45rem .7rem .45rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
.name{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.86rem}
.number{text-align:right;font-variant-numeric:tabular-nums}
.bar{display:inline-block;width:9rem;height:.5rem;border-radius:.3rem;background:var(--track);overflow:hidden;
vertical-align:middle}
.bar i{display:block;height:100%;background:var(--accent);border-radius:.3rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(14.5rem,1fr));gap:1.2rem}
figure{margin:0}
.grid figure,article{background:var(--card);border:1px solid var(--line);border-radius:.7rem;overflow:hidden}
.grid figure>img{display:block;width:100%;height:11rem;object-fit:cover;object-position:50% 25%}
.grid figcaption{padding:.7rem .9rem .9rem}
.said{font-size:1.15rem;margin:0}
.words{font-size:1.05rem;line-height:1.4;margin:0}
.miss{color:var(--bad)}p.miss:not(.words){margin:.2rem 0 0;font-size:.88rem}
.bars{list-style:none;margin:.5rem 0 0;padding:0;font-size:.8rem;color:var(--quiet)}
.bars li{display:grid;grid-template-columns:1fr 3.5rem 2.4rem;gap:.5rem;align-items:center}
.bars .bar{width:100%;height:.35rem}
.bars .label{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.queries{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1.6rem 1.4rem}
.after{margin-top:1.6rem}
.thumbs{display:grid;grid-template-columns:repeat(3,1fr);gap:.4rem;margin-top:.5rem}
.thumbs img{display:block;width:100%;height:6.2rem;object-fit:cover;object-position:50% 25%;border-radius:.4rem;
opacity:.55}
.thumbs :first-child img{opacity:1;outline:2px solid var(--accent);outline-offset:1px}
.words.hit::after,.qa .hit::after{content:" ✓";color:var(--good)}
.words.miss{color:inherit}.words.miss::after,.qa .miss::after{content:" ✗";color:var(--bad)}
.scene{image-rendering:pixelated}
.pair{display:flex;align-items:flex-end;gap:.5rem;background:var(--track)}
.pair .scene{width:100%;height:auto;display:block}
.pair .small{width:34%;border:2px dashed var(--bad);margin:0 .5rem .5rem 0}
.pair .small~*,.pair img:not(:only-child):first-child{width:62%}
.stack{display:grid;gap:1.4rem}
article{padding:1.1rem}
.row{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:1rem}
.row img{display:block;width:100%;height:auto;border-radius:.4rem;image-rendering:auto}
.row figcaption{font-size:.85rem;color:var(--quiet);padding-top:.4rem}
.notes{margin-top:.9rem}
.caption{font-size:1.15rem;line-height:1.45;margin:0 0 .5rem}
.qa{margin:.15rem 0;color:var(--quiet)}
.qa b{color:var(--ink);font-weight:600}
.qa .miss{color:inherit}
.qa em{color:var(--bad);font-style:normal}
del{color:var(--bad);text-decoration-thickness:1px}
ins{text-decoration:none;color:var(--good)}
footer{margin-top:4rem;padding-top:1rem;border-top:1px solid var(--line);font-size:.88rem;max-width:46rem}
"""
