{# Moments of pairs of values, and how those of parts make those of the whole: sums are n x mean, so they add up.
   Chan, Golub and LeVeque 1983. #}
{% macro moments(alias='') -%}
  {%- for name in ['symbol_a', 'symbol_b', 'n', 'mean_a', 'mean_b', 'variance_a', 'variance_b', 'covariance'] -%}
    {{ alias }}{{ name }}{{ ', ' if not loop.last }}
  {%- endfor -%}
{%- endmacro %}

{% macro pooled_mean(value, a) %}(sum({{ a }}n * {{ value }}) / sum({{ a }}n)){% endmacro %}

{% macro pooled_moments(a='') -%}
  sum({{ a }}n) as n,
  {{ pooled_mean(a ~ 'mean_a', a) }} as mean_a,
  {{ pooled_mean(a ~ 'mean_b', a) }} as mean_b,
  {%- for x in ['a', 'b'] %}
  greatest({{ pooled_mean('(%svariance_%s + %smean_%s * %smean_%s)' | format(a, x, a, x, a, x), a) }} - power({{ pooled_mean(a ~ 'mean_' ~ x, a) }}, 2), 0) as variance_{{ x }},
  {%- endfor %}
  {{ pooled_mean('(%scovariance + %smean_a * %smean_b)' | format(a, a, a), a) }} - {{ pooled_mean(a ~ 'mean_a', a) }} * {{ pooled_mean(a ~ 'mean_b', a) }} as covariance
{%- endmacro %}
