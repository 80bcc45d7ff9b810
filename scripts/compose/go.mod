module bouncer/scripts/compose

go 1.25.0

tool github.com/docker/compose/v5/cmd

require github.com/docker/compose/v5 v5.4.0
